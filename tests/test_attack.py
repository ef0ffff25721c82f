"""A sample of each attack in attack/; `python tests/attack/NAME.py` does it in full."""

import pytest
from attack import archives, flips, pictures, rights, servers

LIARS = {
    "endless body, pinned",
    "length of 5,000 digits",
    "206 of 5,000 digits",
    "204",
    "no HTTP",
    "redirect to 'ftp://127.0.0.1/a'",
    "redirect to 'http://[::1/a'",
    "chunk of words",
}


def test_damaged_pictures_are_read_or_refused_by_one_line():
    found = pictures.attack(count=660, large=False)

    assert found.faults == []
    assert sum(found.counts.values()) == 660
    assert found.counts["read"] > 100 and found.counts["refused"] > 100


def test_hostile_archives_are_read_or_refused_and_stay_in_their_folder():
    found = archives.attack(large=False, every=3)

    assert found.faults == []
    assert found.counts["refused"] > 12


def test_servers_that_lie_are_refused_and_stop_no_other():
    found = servers.attack(LIARS)

    assert found.faults == []
    assert found.counts == {"refused": len(LIARS)}


def test_flipped_bits_in_prepared_records_are_never_believed():
    found = flips.attack(count=24)

    assert found.faults == []
    assert found.counts == {"read": 18, "refused": 6}  # each fourth time the raw files are away


def test_folders_without_rights_are_one_line():
    found = rights.attack({"prepare, read-only", "link of raw, no entry"})
    if found is None:
        pytest.skip("root cannot give its rights away here: there is no setpriv")

    assert found.faults == []
    assert found.counts == {"refused": 2}
