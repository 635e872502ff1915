"""The round trip that every codec's test goes through."""

import importlib.util

import numpy as np
import pytest

from nlvc.coding import rans

# Craystack is not on the package index; its comparison is collected where somebody has put it on the path.
collect_ignore = [] if importlib.util.find_spec("craystack") else ["test_craystack.py"]


def assert_same_message(message, expected):
    np.testing.assert_array_equal(message.head, expected.head)
    assert message.head.dtype == np.uint64
    np.testing.assert_array_equal(rans.flatten(message, fold=False), rans.flatten(expected, fold=False))


def assert_same_data(data, expected):
    if isinstance(expected, list):
        assert len(data) == len(expected)
        for item, other in zip(data, expected, strict=True):
            assert_same_data(item, other)
    else:
        np.testing.assert_array_equal(data, expected)


@pytest.fixture(scope="session")
def check_codec():
    """check_codec(codec, data, message=None): data and message both come back, also through words.

    Returns the longer message. message defaults to an empty one of four lanes.
    """

    def check(codec, data, message=None):
        message = rans.empty_message(4) if message is None else message
        before = rans.flatten(message, fold=False)
        longer = codec.push(message, data)
        np.testing.assert_array_equal(rans.flatten(message, fold=False), before, err_msg="push changed its argument")
        words = rans.flatten(longer)
        for source in (longer, rans.unflatten(words, longer.head.shape)):
            rest, popped = codec.pop(source)
            assert_same_data(popped, data)
            assert_same_message(rest, message)
        np.testing.assert_array_equal(rans.flatten(longer), words, err_msg="pop changed its argument")
        return longer

    return check
