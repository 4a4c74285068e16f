"""The configuration reference can't rot: it is the fields' own words."""

from deployments.reference import render_reference, undocumented_fields
from infra.settings import PROJECT


def test_every_field_says_what_it_is() -> None:
    """A field without a title and a description would be a blank in the form and in the reference."""
    assert undocumented_fields() == []


def test_the_reference_is_up_to_date() -> None:
    """docs/configuration.md is what the fields render to: `python -m deployments.reference > docs/configuration.md`."""
    assert (PROJECT / "docs" / "configuration.md").read_text() == render_reference()
