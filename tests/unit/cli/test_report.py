"""`sdjob report` on the command line."""

from fakes.ledgers import BEGIN_S, MadeUp, written
from sdjob.cli.main import main


def place(folder):
    made = MadeUp(1, BEGIN_S, total_steps=3)
    made.start()
    made.prepare()
    made.train(3)
    made.finish()
    written([made.ledger()], place=folder)
    return str(folder)


def test_it_writes_the_page_and_says_where(tmp_path, capsys):
    out = tmp_path / "new folder" / "page.html"
    assert main(["report", place(tmp_path / "run"), "--out", str(out), "--price-per-hour", "2.5"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert "at $2.5 an hour (--price-per-hour)" in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"], "and nothing half-written beside it"


def test_a_place_without_a_run_is_66_and_leaves_the_page_that_was_there(tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("the last one")
    assert main(["report", str(tmp_path / "nowhere"), "--out", str(out)]) == 66
    assert "no run is here" in capsys.readouterr().err
    assert out.read_text() == "the last one"


def test_a_price_below_nothing_is_64(tmp_path, capsys):
    assert main(["report", "x", "--out", str(tmp_path / "x.html"), "--price-per-hour", "-3"]) == 64
    assert "-3 is no price" in capsys.readouterr().err
