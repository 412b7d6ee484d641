"""What pip on a machine is told, as a build is lent it."""

from pathlib import Path

from pip_here import CERTIFICATES_IN_BUILD, PipHere, lent, options


def test_where_pip_is_told_nothing_a_build_is_lent_nothing() -> None:
    assert lent(options(""), environment={}) == PipHere("[global]\n", certificates=None, folders=[])


def test_the_environment_goes_before_files() -> None:
    listing = "\n".join(
        [":env:.find-links='/b'", "global.find-links='/a'", "global.index-url='https://one'", "install.index-url='https://two'"]
    )
    assert options(listing) == {"find-links": "/b", "index-url": "https://two"}


def test_what_is_about_the_machine_is_left_out() -> None:
    told = options("global.cache-dir='/var/cache'\nglobal.require-virtualenv='1'\nglobal.timeout='60'")
    assert lent(told, environment={}).configuration == "[global]\ntimeout = 60\n"


def test_folders_are_lent_under_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "index/simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    told = {
        "extra-index-url": f"file://{tmp_path}/index/simple\nhttps://elsewhere/simple",
        "find-links": f"{tmp_path}/wheels /not/there",
    }
    found = lent(told, environment={})
    assert found.folders == [tmp_path / "index", tmp_path / "wheels"]
    assert f"extra-index-url = file://{tmp_path}/index/simple https://elsewhere/simple\n" in found.configuration


def test_certificates_are_named_by_pip_or_by_the_environment() -> None:
    line = f"cert = {CERTIFICATES_IN_BUILD}\n"
    found = lent({"cert": "/mine.pem"}, environment={"SSL_CERT_FILE": "/all.pem"})
    assert (found.certificates, line in found.configuration) == (Path("/mine.pem"), True)
    assert lent({}, environment={"SSL_CERT_FILE": "/all.pem"}).certificates == Path("/all.pem")
