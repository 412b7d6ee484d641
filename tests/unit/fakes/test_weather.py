"""The harness of bad weather sees what it should see: what was lost, what was said aloud, what is no fault of sdjob."""

from pathlib import Path

import pytest

from fakes.weather import PLANTED, Told, Weather

FINE = Told(66, "", "sdjob: it is not there.\n")


@pytest.fixture
def seen(tmp_path: Path) -> list[tuple[Path, str]]:
    return []


@pytest.fixture
def weather(tmp_path: Path, seen: list[tuple[Path, str]]) -> Weather:
    weather = Weather(tmp_path / "weather", golden=lambda path, text: seen.append((path, text)))
    (weather.folder / "letter.txt").write_bytes(b"somebody's letter")
    return weather


@pytest.mark.parametrize("change", ["gone", "changed", "longer"])
def test_what_is_lost_is_seen(change: str, weather: Weather):
    before = weather.contents()
    weather.nothing_is_lost(before, FINE)
    letter = weather.folder / "letter.txt"
    if change == "gone":
        letter.unlink()
    else:
        letter.write_bytes(b"another" if change == "changed" else letter.read_bytes() + b" ")
    with pytest.raises(AssertionError, match=r"letter\.txt"):
        weather.nothing_is_lost(before, FINE)


def test_what_an_attempt_writes_anew_is_not_lost(weather: Weather):
    (weather.folder / "run/hint").mkdir(parents=True)
    (weather.folder / "run/hint/head").write_bytes(b"1")
    before = weather.contents()
    (weather.folder / "run/hint/head").write_bytes(b"2")
    weather.nothing_is_lost(before, FINE)


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("where", ["stdout", "stderr", "file"])
def test_a_secret_is_seen(name: str, where: str, weather: Weather):
    told = {"stdout": Told(1, PLANTED[name], ""), "stderr": Told(1, "", f"with {PLANTED[name]}")}.get(where, FINE)
    if where == "file":
        (weather.folder / "scratch").mkdir()
        (weather.folder / "scratch/task.json").write_text(PLANTED[name])
    with pytest.raises(AssertionError, match="task.json" if where == "file" else where):
        weather.no_secret(told)


def test_where_there_is_none_none_is_seen(weather: Weather):
    weather.no_secret(FINE)


def test_the_secrets_that_a_case_uses_itself_count(weather: Weather):
    weather.reach({"AWS_SECRET_ACCESS_KEY": "a-secret-of-this-server"})
    with pytest.raises(AssertionError, match="stderr"):
        weather.no_secret(Told(1, "", "a-secret-of-this-server"))


def test_what_differs_from_run_to_run_is_replaced(weather: Weather, seen: list[tuple[Path, str]]):
    weather.reach({}, bucket="bucket-1f")
    weather.reach({}, bucket="bucket-1f2e")
    told = Told(
        74, "", f"sdjob: s3://bucket-1f2e/x of s3://bucket-1f/y at http://127.0.0.1:4321 in {weather.folder}/a: {'0f' * 20}.\n"
    )
    weather.says("case", told, code=74)
    ((path, text),) = seen
    assert path.name == "case.txt"
    assert text == "exit 74\nsdjob: s3://BUCKET-1/x of s3://BUCKET/y at http://HOST:PORT in FOLDER/a: HASH.\n"


def test_another_exit_code_is_no_golden_file(weather: Weather, seen: list[tuple[Path, str]]):
    with pytest.raises(AssertionError, match="it is not there"):
        weather.says("case", FINE, code=74)
    assert seen == []
