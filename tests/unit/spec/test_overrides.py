from unit.spec.jobs import SMALLEST, job, problems


def test_a_field_a_section_and_an_item():
    text = SMALLEST + "publish: [{to: out}]\n"
    made = job("train.lora.rank=8", "checkpoint={keep: 5}", "publish.0.replace=true", "publish.1.to=other", text=text)
    assert made.train.lora.rank == 8
    assert made.checkpoint.keep == 5
    assert [(target.to, target.replace) for target in made.publish] == [("out", True), ("other", False)]


def test_lists_are_made_on_the_way():
    assert job("publish.0.to=out").publish[0].to == "out"


def test_values_are_yaml():
    made = job("train.optimizer.learning_rate=1e-4", "train.optimizer.betas=[0.9, 0.95]", "train.steps=null", "train.epochs=3")
    assert made.train.optimizer.betas == (0.9, 0.95)
    assert (made.train.steps, made.train.epochs) == (None, 3)


def test_the_last_of_two_counts():
    assert job("train.steps=5", "train.steps=6").train.steps == 6


def test_problems_name_the_argument():
    assert problems("train.lora.rank=0") == ["--set train.lora.rank=0: train.lora.rank: must be at least 1, not 0"]
    assert problems("train.lora.rnak=8")[0].endswith("learning_rate_pattern; did you mean 'rank'?")


def test_a_section_from_the_command_line_forgets_the_lines_of_the_file():
    assert problems("train={method: lora, steps: 0}")[0].startswith("--set train={method: lora, steps: 0}: train.steps:")


def test_what_is_no_assignment():
    assert problems("train.steps") == ["--set train.steps: is not path=value, as in --set train.lora.rank=8"]
    assert "is not path=value" in problems("=5")[0]
    assert "is not path=value" in problems("train..steps=5")[0]


def test_ways_that_lead_nowhere():
    assert "is not a mapping, so it has no 'x'" in problems("name.x=1")[0]
    assert "is too far" in problems("publish=[]", "publish.1.to=out")[0]
    assert "is too far" in problems("publish=[]", "publish.to=out")[0]


def test_values_that_are_not_yaml():
    assert problems("train.lora={rank: 8")[0].startswith("--set train.lora={rank: 8: train.lora: this is not YAML")


def test_secrets_are_not_repeated():
    token = "hf_" + "a" * 20
    told = "\n".join(problems(f"run.scratch={token}"))
    assert "--set run.scratch=***" in told
    assert token not in told
