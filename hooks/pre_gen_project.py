"""Refuse answers that AWS, Docker, GitHub or Python would refuse later, before anything is written."""

import json
import re
import sys

# Rendered as JSON, which escapes whatever could end the string: no answer can break this file.
ANSWERS = json.loads(r'''{{ cookiecutter | tojson }}''')  # fmt: skip

# S3 allows 63 characters. The longest bucket name that may be made of it, one for each environment and account, is
# `<model_name>-production-output-<account id>`; an account id has 12 digits.
LONGEST_MODEL_NAME = 63 - len("-production-output-") - 12
LONGEST_TEXT = 200

# S3 keeps these beginnings for itself; Docker keeps `scratch`.
RESERVED_PREFIXES = ("sthree-", "amzn-s3-demo-")
RESERVED_NAMES = {"scratch"}

# A Python project can't carry the name of a package that it depends on.
DEPENDENCIES = {
    "boto3", "cfn-lint", "cyclonedx-bom", "hypothesis", "msgspec", "mypy", "numpy", "onnx", "onnxruntime",
    "pandas", "pandas-stubs", "pillow", "pre-commit", "pyarrow", "pytest", "pyyaml", "requests", "rich", "ruff",
    "scikit-learn", "skl2onnx", "typer", "types-pyyaml", "types-requests", "uv",
}  # fmt: skip

# The regions of the `aws` partition.
REGIONS = """
af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7
ca-central-1 ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2
eu-west-3 il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
"""


def model_name_problem(name: str) -> str | None:
    """Why `name` can't name a model, or None."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        return (
            "ECR, S3 and CloudFormation together take only lower-case letters, digits and single hyphens "
            "between them, beginning with a letter"
        )
    if len(name) < 2:
        return "ECR takes no name of one character"
    if len(name) > LONGEST_MODEL_NAME:
        return (
            f"it has {len(name)} characters and may have {LONGEST_MODEL_NAME}: an S3 bucket "
            f"`{name}-production-output-<account id>` would be longer than the 63 that S3 allows"
        )
    if name.startswith(RESERVED_PREFIXES):
        return "S3 keeps names with this beginning for itself"
    if name in RESERVED_NAMES:
        return "Docker keeps this name for itself"
    if name in DEPENDENCIES:
        return "the model depends on the Python package of that name, and a project can't depend on itself"
    return None


def text_problem(text: str) -> str | None:
    """Why `text` can't stand in a file's heading, or None."""
    if not text.strip():
        return "it is empty"
    if len(text) > LONGEST_TEXT:
        return f"it has {len(text)} characters and may have {LONGEST_TEXT}"
    # control characters, other ends of line, and what isn't a character at all (a broken terminal's input)
    if bad := re.search(r'["\\{}\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]', text):
        return f"the character {bad.group()!r} would break the TOML, YAML and Markdown files it is written to"
    return None


def github_owner_problem(owner: str) -> str | None:
    """Why GitHub has no user or organization called `owner`, or None."""
    if len(owner) > 39:
        return f"it has {len(owner)} characters and GitHub allows 39"
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", owner):
        return "GitHub takes only letters, digits and single hyphens between them"
    return None


def region_problem(region: str) -> str | None:
    """Why `region` isn't an AWS region, or None."""
    return (
        None if region in REGIONS.split() else "AWS has no region of that name (`aws account list-regions` lists them)"
    )


def main() -> None:
    """Report every answer that is refused, each with the field, the reason and a valid example."""
    checks = [
        ("model_name", model_name_problem, "iris-classifier"),
        ("description", text_problem, "Tells the species of an iris flower."),
        ("author", text_problem, "Machine Learning Team"),
        ("github_owner", github_owner_problem, "octo-org"),
        ("aws_region", region_problem, "eu-central-1"),
    ]
    refused = False
    for field, problem_of, example in checks:
        answer = ANSWERS[field]
        if reason := problem_of(answer):
            print(f"{field} can't be {answer!r}: {reason}. A valid example: {example}", file=sys.stderr)
            refused = True
    if refused:
        sys.exit(1)


if __name__ == "__main__":
    main()
