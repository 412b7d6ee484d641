"""How drawn pictures are called, by whoever draws and whoever looks for them."""


def picture_name(*, prompt: int, image: int) -> str:
    return f"{prompt:02d}-{image:02d}.png"
