"""Samplers of diffusers that need scipy, each as the numbers that it gets from there."""

from diffusers import EulerDiscreteScheduler, LMSDiscreteScheduler


def beta_sigmas() -> list[float]:
    scheduler = EulerDiscreteScheduler(use_beta_sigmas=True)
    scheduler.set_timesteps(7)
    return scheduler.sigmas.tolist()


def lms_coefficients() -> list[float]:
    scheduler = LMSDiscreteScheduler()
    scheduler.set_timesteps(7)
    return [float(scheduler.get_lms_coefficient(order=2, t=3, current_order=order)) for order in range(2)]
