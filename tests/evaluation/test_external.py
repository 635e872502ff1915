"""Command lines as codecs: small Python programs stand for encoders."""

import os
import sys
import time

import numpy as np
import pytest

from nlvc.evaluation.codecs import measure
from nlvc.evaluation.external import command_codec
from nlvc.evaluation.trip import CodecFailure

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)

ENCODER = """
import sys
from PIL import Image
source, target, quality = sys.argv[1:]
Image.open(source).save(target, "JPEG", quality=int(quality))
"""
DECODER = """
import sys
from PIL import Image
assert sys.argv[1].endswith(".jpg")
Image.open(sys.argv[1]).save(sys.argv[2])
"""


@pytest.fixture
def programs(tmp_path):
    """A function from names and texts of programs to their command lines, in a folder whose name has a blank."""
    folder = tmp_path / "my programs"
    folder.mkdir()

    def write(name, text):
        (folder / name).write_text(text)
        return f"'{sys.executable}' '{folder / name}'"

    return write


def test_a_photo_there_and_back(programs):
    encode, decode = programs("encode.py", ENCODER), programs("decode.py", DECODER)
    codec = command_codec("mine", f"{encode} {{input}} {{output}} {{setting}}", f"{decode} {{input}} {{output}}",
                          [10, 90.0], suffix=".jpg")  # fmt: skip
    assert codec.name == "mine" and codec.settings == (10, 90) and "encode.py" in codec.note
    low, high = (measure(codec, PHOTO, setting) for setting in codec.settings)
    assert low.bytes < high.bytes and low.psnr < high.psnr
    assert codec.encode(PHOTO, 10).startswith(b"\xff\xd8")


def codec_of(encode):
    return command_codec("mine", f"{encode} {{input}} {{output}}", "true {input} {output}", [1], timeout=20)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import sys\nprint('first')\nsys.exit('bad luck')", r"ended with status 1: bad luck$"),
        ("import sys\nsys.exit(3)", r"ended with status 3: it said nothing$"),
        ("", r"wrote no file$"),
    ],
)
def test_a_command_that_fails_is_named(programs, text, complaint):
    with pytest.raises(CodecFailure, match=rf"^mine at setting 1 failed on a photo: `.*bad\.py.*` {complaint}"):
        measure(codec_of(programs("bad.py", text)), PHOTO, 1)


def test_a_command_that_is_not_there():
    with pytest.raises(CodecFailure, match=r"`no-such-encoder .*photo\.png .*` did not start: No such file"):
        codec_of("no-such-encoder").encode(PHOTO, 1)


@pytest.mark.skipif(os.name != "posix", reason="ends the children of a command by their process group")
def test_a_command_that_takes_too_long_is_ended_with_its_children(programs, tmp_path):
    mark = tmp_path / "survived"
    child = programs("child.py", f"import time; time.sleep(3); open({str(mark)!r}, 'w').close()")
    slow = programs("slow.py", f"import subprocess, shlex; subprocess.run(shlex.split({child!r}))")
    codec = command_codec("mine", f"{slow} {{input}} {{output}}", "true {input} {output}", [1], timeout=2)
    start = time.monotonic()
    with pytest.raises(CodecFailure, match=r"slow\.py.*` took more than 2 s$"):
        codec.encode(PHOTO, 1)
    time.sleep(max(0, start + 6 - time.monotonic()))
    assert not mark.exists()


def test_nothing_is_given_to_a_shell(programs):
    printer = programs("print.py", "import sys\nsys.exit(' '.join(sys.argv[3:]))")
    codec = command_codec(
        "mine", f"{printer} {{input}} {{output}} $HOME '*' ; x{{setting}}", "true {input} {output}", [1]
    )
    with pytest.raises(CodecFailure, match=r"status 1: \$HOME \* ; x0\.25$"):
        codec.encode(PHOTO, 0.25)


def test_templates_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match=r"`enc {input}`: a command of a codec needs {input} and {output}"):
        command_codec("mine", "enc {input}", "dec {input} {output}", [1])
    with pytest.raises(ValueError, match="No closing quotation"):
        command_codec("mine", "enc {input} {output}", "dec '{input} {output}", [1])
