"""What most people write: a CSV from S3 into a pandas table, the pickled pipeline, and a CSV back to S3."""

import io
import os
import sys

import boto3
import joblib
import pandas as pd


def main(model_path: str, bucket: str, key: str) -> None:
    """Score the file `key` and write it to OUTPUT_BUCKET."""
    model, s3 = joblib.load(model_path), boto3.client("s3")
    table = pd.read_csv(s3.get_object(Bucket=bucket, Key=key)["Body"])
    features = table[list(model.feature_names_in_)]
    # The encoder was fitted to tables in which missing text is empty.
    features = features.fillna(dict.fromkeys(features.select_dtypes("str").columns, ""))
    table["prediction"] = model.predict(features)
    scores = model.predict_proba(features)
    for column, label in enumerate(model.classes_):
        table[f"probability_{label}"] = scores[:, column]
    content = table.to_csv(index=False).encode()
    s3.upload_fileobj(io.BytesIO(content), os.environ["OUTPUT_BUCKET"], key)


if __name__ == "__main__":
    main(*sys.argv[1:])
