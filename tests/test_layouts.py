"""What people have on disk is read where it lies: every layout of the table in miniature.

`python tests/layouts_table.py` prints the table. Classes are compared picture by picture, by pixels,
with what was laid, and where torchvision or `datasets` read the same files, with their reading.
"""

import json
import os
import shutil

import layouts_own  # noqa: F401  registers its layouts
import layouts_several  # noqa: F401
import pytest
from layouts import FSC, LAYOUTS, expected, noise, read_by_others, try_layout, write, write_zip
from tars import write_tar

from fsc_bench.data.images import Images, write_link
from fsc_bench.data.link import in_hub_cache
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.data.sources import sources
from fsc_bench.errors import DataError
from fsc_bench.records import OWN, ImageRef
from fsc_bench.task import catalogue


@pytest.mark.parametrize("one", LAYOUTS, ids=str)
def test_a_layout_is_read_as_it_lies_or_refused_with_the_reason(one, tmp_path):
    found = try_layout(one, tmp_path)
    if one.refused:
        assert one.refused in found.line and found.records == 0
        assert "\n" not in found.line
        return
    assert found.line == ""
    assert found.classes == expected(one.task)
    assert found.records == len(expected(one.task))
    if one.theirs:
        assert read_by_others(one, tmp_path) == found.classes


def test_each_of_the_21_and_the_3_has_layouts_that_are_read():
    read = {
        name: {one.name for one in LAYOUTS if one.task == name and not one.refused} for name in FSC
    }
    assert {name: len(found) for name, found in read.items() if found} == {
        name: len(found) for name, found in read.items() if FSC[name].group != "compositionality"
    }
    assert min(len(found) for name, found in read.items() if FSC[name].classes) >= 4
