"""docs/reference.md: its section on settings is the one that the settings classes make."""

from tests.reference import SERVICES, main, rows


def test_the_page_is_in_step_with_the_classes() -> None:
    assert main(["--check"]) == 0, "run python -m tests.reference"


def test_every_setting_of_every_service_is_in_one_table() -> None:
    names = [name for lines in rows().values() for name, _ in lines]
    assert sorted(names) == sorted({name.upper() for each in SERVICES for name in each.model_fields})


def test_every_setting_has_a_meaning_and_no_line_breaks_its_table() -> None:
    for name, line in (pair for lines in rows().values() for pair in lines):
        assert line.count(" | ") == 3, name
        assert len(line.split(" | ")[3]) > 15, name
