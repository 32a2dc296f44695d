"""What infra/service.yaml says before it is deployed: the defaults of its parameters."""

from typing import Any

import yaml

from pipeline.settings import ROOT

TEMPLATE = ROOT / "infra" / "service.yaml"


class _Loader(yaml.SafeLoader):
    """Reads YAML whatever its tags are; CloudFormation's, such as !Ref, mean nothing here."""


_Loader.add_multi_constructor("!", lambda *_: None)


def defaults() -> dict[str, str]:
    """Return the default of each parameter that has one."""
    document: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return {name: str(it["Default"]) for name, it in document["Parameters"].items() if "Default" in it}
