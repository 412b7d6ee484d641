import pytest

from unit.spec.jobs import SMALLEST, job, problems


def test_places_and_the_name_are_filled_in():
    made = job(
        "name=${WHO}-lora",
        "model.source=${ROOT}/base",
        "publish.0.to=s3://${BUCKET}/out",
        environment={"WHO": "me", "ROOT": "/models", "BUCKET": "b-1"},
    )
    assert made.name == "me-lora"
    assert made.model.source == "/models/base"
    assert made.publish[0].to == "s3://b-1/out"
    assert made.checkpoint.to == "runs/me-lora"


def test_elsewhere_a_dollar_stays():
    made = job("validation.prompts=['a ${COLOUR} $5 cat']")
    assert made.validation is not None
    assert made.validation.prompts == ("a ${COLOUR} $5 cat",)
    assert job("model.source=$HOME/base").model.source == "$HOME/base"


def test_an_unset_variable_is_named():
    (told,) = problems("data.source=${NOWHERE}")
    assert "data.source: the environment variable NOWHERE is not set; set it, or write the value itself" in told


def test_a_filled_in_name_is_checked():
    assert "is not allowed" in problems("name=${WHO}", environment={"WHO": "Not A Label"})[0]


@pytest.mark.parametrize(
    "secret",
    ["hf_" + "x" * 34, "AKIAIOSFODNN7EXAMPLE", "https://me:word@host/x", "ghp_" + "a" * 36, "-----BEGIN PRIVATE KEY-----"],
)
def test_secrets_are_refused_and_not_repeated(secret: str):
    told = "\n".join(problems(text=SMALLEST + f"run: {{scratch: '{secret}'}}\n"))
    assert "job.yaml:6: run.scratch: this looks like" in told
    assert secret not in told
    assert len(told.splitlines()) == 1


def test_a_variable_that_is_named_like_a_secret_is_never_filled_in():
    told = problems("checkpoint.to=runs/${DB_PASSWORD}", environment={"DB_PASSWORD": "hunter2-hunter2"})
    assert len(told) == 1
    assert "DB_PASSWORD looks like a secret" in told[0]
    assert "hunter2" not in told[0]
