"""What a command sets for its whole process, and puts back."""

import sys

import pytest
import torch

from fsc_bench.system.settings import SWITCH, working


def test_threads_take_turns_often_and_float32_is_not_rounded_only_while_a_command_works():
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)  # Python's own
    try:
        with working():
            # An interval of Python's own 5 ms lets sixteen decoding threads wait for one busy one.
            assert sys.getswitchinterval() == pytest.approx(SWITCH)
            assert torch.backends.cuda.matmul.allow_tf32 is False
        assert sys.getswitchinterval() == pytest.approx(0.005)
        assert torch.backends.cuda.matmul.allow_tf32 is True
    finally:
        sys.setswitchinterval(before)
        torch.backends.cuda.matmul.allow_tf32 = products
