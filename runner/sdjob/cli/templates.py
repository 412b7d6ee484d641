"""The job files that `sdjob init` writes."""

HEAD = """\
# {what}
# Check it with `sdjob validate FILE`, start it with `sdjob run FILE`; the same command resumes it.
# Every field and its default: `sdjob schema`. ${{VAR}} in a place or in the name is filled in from the environment.
apiVersion: sdjob/v1
name: {name}                     # small letters, digits and hyphens, at most 40

model:
  source: models/stable-diffusion-v1-4   # a model folder in diffusers' layout

data:
  source: pictures                # a folder with metadata.jsonl, metadata.csv, or NAME.txt beside NAME.png
  caption_column: text
  resolution: 512                 # pixels, a multiple of 8; or {{width: 768, height: 512}}
  crop: center                    # center | random
  flip: false                     # flip every second picture, drawn at random
"""

TAIL = """
validation:                       # pictures to watch the training by; take it out to draw none
  prompts: ["cute dragon creature"]
  every_steps: 500

checkpoint:
  to: runs/{name}
  every_steps: 500                # the last step is always committed
  keep: 3                         # the newest ones; older ones are removed

publish:
  - to: published/{name}          # weights, samples and a model card

run:
  # accelerator: nvidia-l4        # cpu[:N] | nvidia-NAME[:per node]; absent: what this machine has
  max_hours: null                 # over all attempts
"""

LORA = (
    HEAD
    + """
train:
  method: lora
  seed: 0                         # decides every random draw
  steps: 15000                    # or epochs
  global_batch: 4                 # pictures for each optimizer step, over all devices
  device_batch: 1                 # pictures at once on a device; more is faster and takes more memory
  precision: auto                 # bf16, fp16 where a GPU has no bf16, fp32 on CPU
  optimizer: {{learning_rate: 1e-4}}
  schedule: {{name: constant}}      # constant | constant_with_warmup | linear | cosine | ...
  lora: {{rank: 4}}                 # alpha is the rank unless it is given
"""
    + TAIL
)

FULL = (
    HEAD
    + """
train:
  method: full
  seed: 0                         # decides every random draw
  steps: 15000                    # or epochs
  global_batch: 4                 # pictures for each optimizer step, over all devices
  device_batch: 1                 # pictures at once on a device; more is faster and takes more memory
  precision: auto                 # bf16, fp16 where a GPU has no bf16, fp32 on CPU
  gradient_checkpointing: true    # less memory, more time
  optimizer: {{learning_rate: 1e-5}}
  schedule: {{name: constant_with_warmup, warmup_steps: 500}}
  ema: {{decay: 0.9999}}            # what is published is the running average of the weights
"""
    + TAIL
)

TEMPLATES = {"lora": (LORA, "Trains a LoRA on captioned pictures."), "full": (FULL, "Fine-tunes all weights of the UNet.")}


def job_file(template: str, *, name: str) -> str:
    text, what = TEMPLATES[template]
    return text.format(what=what, name=name)
