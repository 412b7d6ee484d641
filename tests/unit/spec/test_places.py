from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.core.errors import UsageError
from sdjob.spec.places import parse_place

HERE = Path("/srv/here")


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("runs/x", "file:///srv/here/runs/x"),
        ("./runs//x/", "file:///srv/here/runs/x"),
        ("../x", "file:///srv/x"),
        ("/abs/x", "file:///abs/x"),
        ("file:///abs/x", "file:///abs/x"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
        ("gs://my_bucket/a", "gs://my_bucket/a"),
        ("hf://CompVis/stable-diffusion-v1-4", "hf://CompVis/stable-diffusion-v1-4"),
        ("hf://datasets/me/x@refs/pr/1", "hf://datasets/me/x@refs/pr/1"),
        ("hf://models/me/x", "hf://models/me/x"),
    ],
)
def test_every_spelling_has_one_uri(text: str, uri: str):
    place = parse_place(text, base=HERE)
    assert place.uri == uri
    assert parse_place(uri, base=HERE) == place


def test_a_folder_has_a_path_and_others_have_none():
    assert parse_place("x", base=HERE).path == HERE / "x"
    with pytest.raises(UsageError, match="s3://bucket: is not a folder"):
        _ = parse_place("s3://bucket", base=HERE).path


def test_parts_of_a_repository():
    place = parse_place("hf://datasets/me/x@v1", base=HERE)
    assert (place.name, place.revision, place.hub_kind) == ("me/x", "v1", "datasets")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " x",
        "x\n",
        "a\0b",
        "~/x",
        "http://x",
        "s4://b/x",
        "file://x",
        "file:",
        "s3:///x",
        "s3://B/x",
        "gs://a b",
        "hf://x",
        "hf://a/b/c",
        "hf://spaces/a/b",
        "hf://a/b@",
        "hf://a/b@x y",
        "hf://a--b/c",
        "hf://.a/b",
    ],
)
def test_what_is_no_place(text: str):
    if text == "file:":  # a relative folder of that name
        assert parse_place(text, base=HERE).scheme == "file"
        return
    with pytest.raises(UsageError):
        parse_place(text, base=HERE)


@given(st.text(max_size=40))
def test_any_text_is_a_place_or_a_usage_error(text: str):
    try:
        place = parse_place(text, base=HERE)
    except UsageError:
        return
    assert parse_place(place.uri, base=HERE) == place
