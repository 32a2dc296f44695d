from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["year", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
CATEGORIES = ["island", "sex"]

AT_LEAST = {"accuracy": 0.95}
AT_MOST = {}


def fit(train):
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
    )
    return make_pipeline(columns, LogisticRegression()).fit(train[NUMBERS + CATEGORIES], train["species"])


def evaluate(model, test):
    return {"accuracy": accuracy_score(test["species"], model.predict(test[NUMBERS + CATEGORIES]))}
