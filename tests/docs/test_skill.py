"""The skill for agents is one file, found under both names that agents look for."""

import subprocess

from infra.settings import PROJECT

SKILL, LINK = PROJECT / ".agents" / "skills" / "spaceport" / "SKILL.md", PROJECT / ".claude" / "skills" / "spaceport"


def test_the_second_name_of_the_skill_leads_to_the_first() -> None:
    """`.claude/skills/spaceport` is a symbolic link, here and in what git hands to a clone."""
    assert LINK.is_symlink() and (LINK / "SKILL.md").samefile(SKILL)
    listed = subprocess.run(["git", "ls-files", "-s", str(LINK)], cwd=PROJECT, capture_output=True, text=True, check=False).stdout
    assert not listed or listed.startswith("120000 ")  # a copy without git has no list


def test_every_exit_code_of_the_readme_is_in_the_skill() -> None:
    """An agent and a person are told the same codes."""
    codes = (PROJECT / "README.md").read_text().partition("Exit codes: ")[2].partition("\n\n")[0]
    told = [part.split()[0] for part in codes.replace("\n", " ").split("· ")]
    assert told == ["0", "1", "2", "3", "130"]
    assert [code for code in told if f"\n| {code} |" not in SKILL.read_text()] == []
