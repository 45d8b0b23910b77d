"""CloudFormation's YAML: its tags as the functions that they abbreviate."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "deploy" / "ec2" / "template.yaml"


class _Loader(yaml.SafeLoader):
    """The safe loader, which also knows !Ref, !Sub and the others."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if name == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _function)


def load() -> dict[str, Any]:
    """The template."""
    loaded: dict[str, Any] = yaml.load(TEMPLATE.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    return loaded


def user_data(**values: str) -> str:
    """What cloud-init is given, with CloudFormation's values in their places."""
    launch = load()["Resources"]["Launch"]["Properties"]["LaunchTemplateData"]
    text, own = launch["UserData"]["Fn::Base64"]["Fn::Sub"]
    known = {name: str(parameter.get("Default", "")) for name, parameter in load()["Parameters"].items()}
    known |= dict.fromkeys(own, "") | {"AWS::Region": "eu-central-1", "DataVolume": "", "Ready": ""} | values
    for name, value in known.items():
        text = text.replace("${" + name + "}", value)
    return str(text.replace("${!", "${"))
