"""Steps, time, money and bytes of whole jobs; each figure from its own sum."""

import pytest

from sdjob.core.errors import UsageError
from sdjob.plan.limits import require_within
from sdjob.plan.pictures import num_pictures
from sdjob.spec.data import DataSpec
from unit.plan.jobs import SDXL, make_job, plan_of

UNET_SD1 = 859_520_964
GFLOP = 1e9
FULL = {"method": "full", "steps": None}


# ---- length ----------------------------------------------------------------------------------------------------------------


def test_steps_are_what_the_job_says():
    found = plan_of(make_job(train={"steps": 100, "global_batch": 4}), pictures=250).length
    assert (found.steps, found.seen, found.epochs) == (100, 400, 1.6)


def test_epochs_are_rounded_up():
    train = {"steps": None, "epochs": 3, "global_batch": 4}
    assert plan_of(make_job(train=train), pictures=129).length.steps == 97  # ceil(3 x 129 / 4)
    assert plan_of(make_job(train=train, data={"max_samples": 100}), pictures=129).length.steps == 75


def test_epochs_of_pictures_that_nobody_has_counted():
    found = plan_of(make_job(train={"steps": None, "epochs": 3}))
    assert found.step_s is not None
    assert (found.length.steps, found.hours, found.usd, found.losses) == (None, None, None, None)


def test_pictures_of_a_folder_are_counted_by_their_names(tmp_path):
    for name in ("a.png", "b.JPG", "c.txt", "metadata.jsonl", "d/e.webp"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    assert num_pictures(DataSpec(source="data"), base=tmp_path) == 3
    assert num_pictures(DataSpec(source="data/d"), base=tmp_path) == 1
    for elsewhere in ("nowhere", "hf://me/data", "s3://bucket/data"):
        assert num_pictures(DataSpec(source=elsewhere), base=tmp_path) is None


# ---- work and time ---------------------------------------------------------------------------------------------------------


def test_the_published_work_of_a_picture():
    """SD 1.5 at 512 px: 803 GFLOP forward, 2407 forward and backward of a full step, VAE and text encoder 1130 where they run;
    SDXL at 1024 px 6.76 TFLOP forward."""
    full = plan_of(make_job(train={"method": "full", "cache": "never"})).work
    assert full.unet.forward / GFLOP == pytest.approx(803, abs=1)
    assert (full.unet.forward + full.unet.backward) / GFLOP == pytest.approx(2407, abs=4)
    assert full.encoders / GFLOP == pytest.approx(1130, abs=2)
    assert plan_of(make_job(train={"method": "full"})).work.encoders == 0
    assert plan_of(make_job(source=SDXL, px=1024)).work.unet.forward / GFLOP == pytest.approx(6760, rel=0.01)


def test_a_step_is_of_the_whole_batch():
    one, many = (plan_of(make_job(train={"global_batch": batch})).work for batch in (1, 12))
    assert many.total == 12 * one.total


def test_step_time_is_work_over_the_share_of_the_peak():
    """LoRA on L4, 15 to 35 % of 121 TFLOP/s; the update moves 28 bytes a trained number at 300 GB/s."""
    found = plan_of(make_job("nvidia-l4"))
    update_s = 28 * found.work.trained_params / 300e9
    assert found.step_s.low == pytest.approx(found.work.total / (0.35 * 121e12) + update_s)
    assert found.step_s.high == pytest.approx(found.work.total / (0.15 * 121e12) + update_s)


def test_more_devices_share_a_step():
    train = {"method": "full", "global_batch": 16}
    one, eight = (plan_of(make_job(name, train=train)).step_s.low for name in ("nvidia-a100", "nvidia-a100:8"))
    update_s = 28 * UNET_SD1 / 1555e9
    assert (one - update_s) / (eight - update_s) == pytest.approx(8)


@pytest.mark.parametrize(
    ("pictures_per_s", "accelerator", "train"),
    [
        # https://github.com/mosaicml/diffusion: SD 2 base at 512 px, 290 pictures a second on eight A100, latents at hand
        (290, "nvidia-a100:8", {"method": "full", "device_batch": 16}),
        # MLPerf Training 4.0: 73 pictures a second of one H100
        (73, "nvidia-h100-80gb", {"method": "full", "device_batch": 16}),
        # diffusers' examples/research_projects/pytorch_xla: 64 a second and chip of v5p
        (4 * 64, "tpu-v5p:2x2x1", {"method": "full", "device_batch": 16, "backend": "flax"}),
    ],
)
def test_what_others_measured_lies_in_the_range(pictures_per_s, accelerator, train):
    found = plan_of(make_job(accelerator, source="hf://stabilityai/stable-diffusion-2-base", train=train))
    assert found.step_s.low < found.job.train.global_batch / pictures_per_s < found.step_s.high


@pytest.mark.parametrize(
    ("accelerator", "train"), [(None, {}), ("cpu:2", {}), ("nvidia", {}), ("nvidia-l4", {"precision": "fp32"})]
)
def test_no_time_where_no_peak_is_known(accelerator, train):
    found = plan_of(make_job(accelerator, train=train))
    assert (found.step_s, found.hours, found.usd) == (None, None, None)


# ---- checkpoints and transfers ---------------------------------------------------------------------------------------------


def test_a_checkpoint_is_weights_moments_and_the_average():
    plain, averaged = (plan_of(make_job(train={"method": "full", "ema": ema})).checkpoint for ema in (None, {}))
    assert plain.size_bytes == 12 * UNET_SD1
    assert averaged.size_bytes == 16 * UNET_SD1


def test_whether_a_notice_is_enough():
    """10.3 GB at 200 MB/s are 52 s beside 1.3 s for the copy: too long for GKE's 15 s, within 0.7 of EKS' 90 s."""
    verdicts = {}
    for flavor in ("gke", "eks"):
        run = {"spot": True, "kubernetes": {"flavor": flavor, "image": "i"}}
        verdicts[flavor] = plan_of(make_job(train={"method": "full"}, run=run)).checkpoint.fits_notice
    assert verdicts == {"gke": False, "eks": True}
    assert plan_of(make_job()).checkpoint.fits_notice


def test_commits():
    found = plan_of(make_job(train={"steps": 1001}, checkpoint={"every_steps": 250}))
    assert found.transfer.commits == 5  # the last step's too
    assert found.transfer.commit_bytes == 5 * found.checkpoint.size_bytes
    by_time = plan_of(make_job(train={"steps": 10_000}, checkpoint={"every_steps": None, "every_seconds": 60}))
    assert by_time.transfer.commits == pytest.approx(by_time.training_hours.high * 60, abs=1)
    auto = plan_of(make_job(train={"steps": 100_000}, checkpoint={"every": "auto"}))
    assert 10 <= auto.checkpoint.every_s <= 3600


def test_spot_is_cheaper_and_is_interrupted():
    calm, spot = (plan_of(make_job(train={"method": "full", "steps": 100_000}, run={"spot": spot})) for spot in (False, True))
    assert spot.losses.interruptions > 50 * calm.losses.interruptions
    assert spot.hours.high > calm.hours.high > calm.training_hours.high
    assert spot.usd.high < calm.usd.high


def test_a_pod_has_room():
    lora, full = (plan_of(make_job(train={"method": method})).pod for method in ("lora", "full"))
    assert full.memory - lora.memory == pytest.approx(12 * UNET_SD1, rel=0.01)
    assert full.scratch - lora.scratch == pytest.approx(3 * 12 * UNET_SD1, rel=0.01)


# ---- limits ----------------------------------------------------------------------------------------------------------------


def test_limits_hold_against_the_upper_end():
    found = plan_of(make_job("nvidia-l4"))
    require_within(found, budget_usd=found.usd.high, max_hours=found.hours.high)
    with pytest.raises(UsageError, match=r"--budget [\d.]+: it may cost") as caught:
        require_within(found, budget_usd=found.usd.high * 0.99, max_hours=found.hours.high * 0.99)
    assert "--max-hours" in str(caught.value)


@pytest.mark.parametrize(
    ("accelerator", "parts", "told"),
    [
        (None, {}, "nobody knows how fast these processors are"),
        ("nvidia-rtx-3090", {}, "no price of nvidia-rtx-3090"),
        ("nvidia-l4", {"train": {"steps": None, "epochs": 2}}, "the pictures have not been counted"),
        ("nvidia-l4", {"train": {"precision": "fp32"}}, "it computes in float32"),
        ("nvidia-rtx-4050", {}, "no price of nvidia-rtx-4050"),
    ],
)
def test_a_limit_that_nobody_can_judge_is_an_error(accelerator, parts, told):
    with pytest.raises(UsageError, match=told):
        require_within(plan_of(make_job(accelerator, **parts)), budget_usd=1e6, max_hours=None)
