"""Cards: our part is ours to the byte, and everything else belongs to whoever wrote it."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInput
from infra.hub.cards import BEGIN, END, body_of, front_matter_of, merge_card, promote_card, text_of

PEOPLES = """---
license: mit  # agreed with legal
extra:
  nested: [1, 2]
tags:
- old
widget:
- text: "one: two"
# a comment between
thumbnail: x.png
---
# Reviews

By hand.

<!-- spaceport:begin -->
old body
<!-- spaceport:end -->

Below, also by hand.
"""


def test_a_new_card_is_our_part_alone():
    """Without a card there is front matter, our markers, and nothing else."""
    assert merge_card(None, "# Hi", {"license": "mit", "tags": ["a"]}) == f"---\nlicense: mit\ntags:\n- a\n---\n\n{BEGIN}\n# Hi\n{END}\n"


def test_peoples_text_and_front_matter_stay_byte_for_byte():
    """Only our body and our keys change; comments, order and form of other keys don't."""
    merged = merge_card(PEOPLES, "new body", {"tags": ["new"], "language": "en"})
    assert merged == PEOPLES.replace("old body", "new body").replace("- old", "- new").replace("thumbnail: x.png\n", "thumbnail: x.png\nlanguage: en\n")


def test_merging_the_same_again_changes_no_byte():
    """A card is a fixed point of its own merge, whatever people wrote around it."""
    for card in (None, "", "just text", PEOPLES, PEOPLES.replace("\n", "\r\n"), f"{BEGIN}\ntorn", "---\n---\nempty front matter"):
        once = merge_card(card, "body", {"license": "mit", "tags": ["t"]})
        assert merge_card(once, "body", {"license": "mit", "tags": ["t"]}) == once


_words = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\ufeff", exclude_categories=("Cs", "Cc")), max_size=20)
_text = st.lists(st.one_of(_words, st.sampled_from([BEGIN, END, "", "# t", "---"])), max_size=8).map("\n".join)


@given(_text, _text)
def test_no_text_of_people_is_lost_and_no_quoted_marker_opens_a_part(text, body):
    """Every line outside a whole marked part is still there, our part is there once, and a second merge is the same."""
    existing = "---\nkey: 1\n---\n" + text
    once = merge_card(existing, body, {"license": "mit"})
    assert once.count(BEGIN) == once.count(END) == 1
    assert merge_card(once, body, {"license": "mit"}) == once
    if BEGIN not in text:
        for line in text.replace(END, "").split("\n"):
            assert line.strip() in once


def test_a_torn_marker_swallows_nobodys_text():
    """A begin without its end is taken out, and the text that followed it stays."""
    merged = merge_card(f"a\n{BEGIN}\nwritten by a person\n{BEGIN}\nours\n{END}\nz\n", "new", {})
    assert "written by a person" in merged and "ours" not in merged and merged.count(BEGIN) == 1


def test_a_key_set_to_none_is_taken_out():
    """A candidate without a base model leaves no stale `base_model` behind."""
    assert "license" not in front_matter_of(merge_card(PEOPLES, "b", {"license": None}))


def test_front_matter_in_an_odd_form_keeps_its_values():
    """Anchors, quoted keys and flow style lose their form but not their content."""
    for odd in ('"license": old\n"quoted": &a [1]\nother: *a', "{license: old, quoted: [1], other: [1]}"):
        merged = merge_card(f"---\n{odd}\n---\nx\n", "b", {"license": "mit"})
        assert front_matter_of(merged) == {"license": "mit", "quoted": [1], "other": [1]} and merged.count("license") == 1


@pytest.mark.parametrize("broken", ["---\na: [\n---\n", "---\n- a\n- b\n---\n"])
def test_front_matter_that_is_no_mapping_is_refused(broken):
    """A card that the Hub itself would refuse is named, not overwritten."""
    with pytest.raises(BadInput, match=r"README\.md: the front matter"):
        merge_card(broken, "b", {"license": "mit"})


def test_promotion_takes_the_candidates_part_and_keeps_mains_people():
    """Main's foreign text and keys stay, the candidate's body and keys come, and keys that we set before and no longer have go."""
    main = merge_card(PEOPLES, "old", {"base_model": "a/b", "license": "mit"})
    candidate = merge_card(None, "candidate body", {"license": "apache-2.0"})
    promoted = promote_card(main, candidate, retired=frozenset({"base_model", "license"}))
    assert body_of(promoted) == "candidate body"
    assert front_matter_of(promoted)["license"] == "apache-2.0" and "base_model" not in front_matter_of(promoted)
    assert "By hand." in text_of(promoted) and "Below, also by hand." in promoted and "thumbnail: x.png" in promoted


def test_values_that_yaml_would_misread_come_back_as_they_were():
    """`no`, versions and colons stay strings; keys keep their order, and long values their line."""
    values = {"language": "no", "version": "1.10", "title": "a: b # c", "long": "w " * 200 + "w"}
    card = merge_card(None, "b", values)
    assert card.startswith("---\nlanguage: 'no'\nversion: '1.10'\ntitle: 'a: b # c'\nlong: ") and len(card.split("---")[1].splitlines()) == 5
    assert front_matter_of(card) == values and yaml.safe_load(card.split("---\n")[1]) == values
