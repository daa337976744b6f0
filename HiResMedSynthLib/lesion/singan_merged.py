"""MergedScale: the iteration of `paper` in a third of the launches, for a GPU, where launches are what it costs.

The same losses and updates as `Scale` (but for rounding): images that the official schedule passes one by one are
passed side by side. Batch norm over a batch of one is a norm of each image by itself, so that no image sees another.
The gradient penalty needs no second backward pass: its slope by the weights is that of the critic's change along a
fixed direction, which is carried forward beside the images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from HiResMedSynthLib.lesion.singan import CHANNELS
from HiResMedSynthLib.lesion.singan_nets import LEAK, BatchNorm, GroupedConv, ScaleNet
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_step import Scale, per_lesion, update

MOMENTUM, EPS = 0.1, 1e-5  # of batch norm
SMALLEST_SLOPE = 1e-12


class MergedScale(Scale):
    """A scale in training; see `Scale`."""

    @staticmethod
    def fits(settings: SinGanSettings) -> bool:
        """Whether the settings' iteration is one that can be merged."""
        s = settings
        official = s.batch_norm and s.pad_outside and s.adversary == "wgan-gp" and s.start == "noise"
        return official and (s.batch, s.reals, s.high_pass, s.low_pass, s.average) == (1, 1, False, 0.0, 0.0)

    def _iterate(self) -> None:
        noise = self._all_channels(self.drawn["z"]) * self.data.amplitude
        images = self._images_below()
        with torch.no_grad():
            fakes = self._generate_apart(noise.expand_as(images), images)
        for d, fake in enumerate(fakes.split(1)):
            gap, d_loss = self._update_critic(fake, d)
        for _ in range(self.settings.g_steps):
            g_loss, rec = self._update_generator(noise, images[-1:])
        for row, value in enumerate((gap, d_loss, g_loss, rec)):
            self.metrics[row].copy_(value.detach())

    def _images_below(self) -> Tensor:
        """`[d_steps, K 2, *size]`, those of all critic steps."""
        steps = self.settings.d_steps
        noises = [
            self._all_channels(torch.cat([self.drawn[f"lower.{d}.{below}"] for d in range(steps)]))
            for below in range(self.scale)
        ]
        empty = torch.zeros(steps, self.lesions * CHANNELS, *self.chain.sizes[0], device=self.device)
        return self.chain(empty, noises)

    def _update_critic(self, fake: Tensor, d: int) -> tuple[Tensor, Tensor]:
        real, weight = self.data.reals, self.settings.gradient_penalty
        share = self.drawn["mix"][d].repeat_interleave(CHANNELS).view(1, -1, *(1,) * len(self.size))
        between = fake.lerp(real, share)
        direction, penalty = self._penalty_slope(between)
        with self._autocast():
            verdicts = carried(self.critic, torch.cat([real, fake, between, direction])).to(real.dtype)
        on_real, on_fake, along = per_lesion(verdicts[:1]), per_lesion(verdicts[1:2]), verdicts[3:].sum()
        update(self.d_optimiser, (on_fake - on_real).sum() + weight * along)
        return on_real - on_fake, on_fake - on_real + weight * penalty

    def _penalty_slope(self, between: Tensor) -> tuple[Tensor, Tensor]:
        """(slope of the penalty by the critic's slope, like `between`; the penalty of each lesion)."""
        probed = between.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._judge(probed).sum(), probed)
        apart = slope.unflatten(1, (self.lesions, CHANNELS))
        norm = apart.norm(dim=2, keepdim=True)
        share = (1 - norm.clamp(min=SMALLEST_SLOPE).reciprocal()) * (2 / norm[0, 0].numel())
        return (share * apart).flatten(1, 2), per_lesion((norm[:, :, 0] - 1) ** 2)

    def _fake_and_back(self, noise: Tensor, image: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        fake, back = self._generate_apart(torch.cat([noise, self.data.fixed_noise]), torch.cat([image, fixed])).split(1)
        return fake, back

    def _generate_apart(self, noise: Tensor, image: Tensor) -> Tensor:
        """The generator's images of a batch, each as if it came alone, in this order."""
        with self._autocast():
            pad = self.settings.layers
            added = apart(self.generator, functional.pad(noise + image, (pad, pad) * len(self.size)))
        added = added.to(image.dtype)
        return (torch.tanh(added) if self.settings.tanh else added) + image


def apart(net: ScaleNet, x: Tensor) -> Tensor:
    """`net(x)` in training, as if the images of the batch came one after another.

    A bias before a norm changes nothing but the norm's running mean: its slope, which is rounding alone, is left out.
    """
    count, kept, own = len(x), list[Tensor](), list[Tensor]()
    for conv, norm in zip(net.convs, net.norms, strict=False):
        assert isinstance(conv, GroupedConv)
        assert isinstance(norm, BatchNorm)
        x = conv.linear(x)
        # in the norm's own type: in bfloat16 its running means couldn't take the others up
        mean, variance = torch.zeros(2, count * x.shape[1], dtype=norm.mean.dtype, device=x.device)
        beside = x.reshape(1, -1, *x.shape[2:])
        normed = functional.batch_norm(
            beside, mean, variance, norm.weight.repeat(count), norm.bias.repeat(count), training=True, momentum=1.0
        )  # a momentum of 1 leaves this batch's own moments
        kept += [norm.mean, norm.variance]
        shift = 0 if conv.bias is None else conv.bias.detach()
        own += [mean.view(count, -1) + shift, variance.view(count, -1)]
        x = functional.leaky_relu(normed.view_as(x), LEAK)
    with torch.no_grad():
        for image in range(count):
            torch._foreach_lerp_(kept, [moment[image] for moment in own], MOMENTUM)
    last: Tensor = net.convs[-1](x)
    return last


def carried(net: ScaleNet, x: Tensor) -> Tensor:
    """A critic in training on the batch `x`, each image as if it came alone, the last but one and its change.

    The last entry of `x` is no image but a direction; the last entry of the result is by how much the result of the
    last image changes along it. Biases are left out: a norm or a difference takes them away again.
    """
    for conv, norm in zip(net.convs, net.norms, strict=False):
        assert isinstance(conv, GroupedConv)
        x = _NormedPair.apply(conv.linear(x), norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    last = net.convs[-1]
    assert isinstance(last, GroupedConv)
    return last.linear(x)


class _NormedPair(torch.autograd.Function):
    """LeakyReLU(gain (u - mean) / sd + bias) of each image `[P, C, ...]`, and its change along the entry after them.

    With x = (u - mean) r, r = 1 / sd and centred t the change of u: x changes by r q, q = t - x mean(x t).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        space, wide = tuple(range(2, u.ndim)), (1, -1, *(1,) * (u.ndim - 2))
        gain = gain.view(wide)
        variance, mean = torch.var_mean(u, space, correction=0, keepdim=True)
        centred, r = u - mean, (variance[:-1] + EPS).rsqrt()
        x, t = centred[:-1] * r, centred[-1:]
        s = (x[-1:] * t).mean(space, keepdim=True)
        q, steepness = t.addcmul(x[-1:], s, value=-1), gain * r
        images = functional.leaky_relu(torch.addcmul(bias.view(wide), gain, x), LEAK)
        ctx.save_for_backward(x, t, q, s, r, steepness, images)
        return torch.cat([images, _through(steepness[-1:] * q, images[-1:])])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, t, q, s, r, steepness, images = ctx.saved_tensors
        space = tuple(range(2, x.ndim))

        def mean(values: Tensor) -> Tensor:
            return values.mean(space, keepdim=True)

        of_images, of_change = _through(slope[:-1], images), _through(slope[-1:], images[-1:])
        own, r_own, n = x[-1:], r[-1:], x[0, 0].numel()
        with_x, with_q = mean(own * of_change), r_own * mean(of_change * q)
        of_gain = (of_images * x).sum((0, *space)) + n * with_q.flatten()
        of_bias = of_images.sum((0, *space))
        of_t = (of_change - mean(of_change)).addcmul_(own, with_x, value=-1) * steepness[-1:]
        of_x = of_images.clone()
        of_x[-1:].addcmul_(r_own * with_x, t, value=-1).addcmul_(r_own * s, of_change, value=-1)
        along = mean(of_x * x)
        along[-1:] += with_q
        of_u = (of_x - mean(of_x)).addcmul_(x, along, value=-1) * steepness
        return torch.cat([of_u, of_t]), of_gain, of_bias


def _through(slope: Tensor, result: Tensor) -> Tensor:
    """A slope through the LeakyReLU that gave `result`."""
    through: Tensor = torch.ops.aten.leaky_relu_backward(slope, result, LEAK, True)
    return through
