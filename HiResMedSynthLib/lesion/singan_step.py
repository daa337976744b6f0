"""One scale of K lesions' GANs: its networks, losses and updates.

Everything an iteration reads lies in tensors of fixed shape and place, and nothing in it waits for a number, so that it
can be captured as a CUDA graph. Randomness depends on (seed + lesion, scale, iteration) alone: a resumed run goes on as
an uncut one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from HiResMedSynthLib.lesion.singan import CHANNELS, make_generator, run_generator
from HiResMedSynthLib.lesion.singan_nets import ScaleNet, blur, resize
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_timing import seconds_on_gpu

BLOCK = 8  # iterations whose noise is drawn at once
FINE, COARSE = 1.0, 1.5  # sigma, voxels: what the critic's texture channel leaves out, what a start fixes
METRICS = ("gap", "d_loss", "g_loss", "rec_mse")
BETAS = (0.5, 0.999)


@dataclass(kw_only=True, eq=False)
class ScaleData:
    """What a scale learns from; K lesions, two channels each.

    Args:
        reals: `[R, K 2, *size]`, the lesions first, then deformed ones.
        lower: `[M, K 2, *size]`, enlarged images of the scale below; None: drawn anew by `chain`.
        fixed: `[R, K 2, *size]`, the enlarged images of the scale below that must give the reals back.
        fixed_noise: `[1, K 2, *size]`, the noise for it (not zero at the first scale of a start from noise).
        amplitude: `[1, K 2, 1 ...]`, of the noise.
    """

    reals: Tensor
    lower: Tensor | None
    fixed: Tensor
    fixed_noise: Tensor
    amplitude: Tensor


def generator_for(device: torch.device, *key: int) -> torch.Generator:
    """A random stream of its own for each key."""
    mixed = 0x9E3779B97F4A7C15
    for part in key:
        mixed = ((mixed ^ (part + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator(device).manual_seed(mixed % 2**63)


class Chain:
    """The trained scales below, run from new noise to the enlarged image that a scale starts from."""

    def __init__(
        self, settings: SinGanSettings, nets: list[ScaleNet], amplitudes: list[Tensor], sizes: list[tuple[int, ...]]
    ) -> None:
        self.settings, self.nets, self.amplitudes, self.sizes = settings, nets, amplitudes, sizes

    def __call__(self, image: Tensor, noises: list[Tensor]) -> Tensor:
        """`image` of the first scale through all trained ones, enlarged to the next."""
        with torch.no_grad():
            for net, amplitude, noise, size in zip(self.nets, self.amplitudes, noises, self.sizes, strict=False):
                image = run_generator(self.settings, net, noise * amplitude, resize(image, size))
            return resize(image, self.sizes[len(self.nets)])


class Scale:
    """The networks of one scale in training; `iterate` updates them once."""

    def __init__(
        self,
        settings: SinGanSettings,
        data: ScaleData,
        chain: Chain,
        *,
        scale: int,
        lesions: int,
        seed: int,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.settings, self.data, self.chain, self.scale, self.lesions = settings, data, chain, scale, lesions
        self.seed, self.device, self.bf16 = seed, device, bf16
        self.size = tuple(data.reals.shape[2:])
        dims = len(self.size)
        self.generator = make_generator(settings, scale, lesions=lesions, dims=dims)
        self.critic = ScaleNet(
            lesions,
            CHANNELS + settings.high_pass,
            1,
            width=settings.width(scale),
            layers=settings.layers,
            dims=dims,
            batch_norm=settings.batch_norm,
            padding=0,
            spectral=settings.adversary == "hinge",
        )
        official = settings.batch_norm
        cpu = torch.device("cpu")
        for part, net in enumerate((self.generator, self.critic)):
            streams = [generator_for(cpu, seed + k, scale, -1, part) for k in range(lesions)]
            net.draw_weights(streams, official=official, zero_tail=not official and part == 0)
            net.to(device)
        self.average = [value.detach().clone() for value in self.generator.parameters()] if settings.average else []
        self.g_optimiser = self._adam(self.generator, settings.g_rate)
        self.d_optimiser = self._adam(self.critic, settings.d_rate)
        if settings.high_pass:
            texture = self._texture(data.reals[:1])
            power = texture.square().mean(dim=(0, *range(2, 2 + dims)), keepdim=True)
            inside = self._channel(data.reals[:1], 1).mean(dim=(0, *range(2, 2 + dims)), keepdim=True)
            self.texture_gain = 0.5 * (power / inside.clamp(min=1e-3)).clamp(min=1e-8).rsqrt()
        self.metrics = torch.zeros(len(METRICS), lesions, device=device)
        self._every_lesion = torch.arange(lesions, device=device)
        self.drawn: dict[str, Tensor] = {}
        self._block: tuple[int, dict[str, Tensor]] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def _adam(self, net: ScaleNet, rate: float) -> torch.optim.Adam:
        parameters = list(net.parameters())
        if self.device.type != "cuda":
            return torch.optim.Adam(parameters, lr=rate, betas=BETAS, foreach=True)
        lr = torch.tensor(rate, device=self.device)  # one that a graph can hold
        return torch.optim.Adam(parameters, lr=lr, betas=BETAS, capturable=True, fused=True)

    def set_rate_share(self, share: float) -> None:
        """Learning rates as a share of the preset's."""
        pairs = ((self.g_optimiser, self.settings.g_rate), (self.d_optimiser, self.settings.d_rate))
        for optimiser, rate in pairs:
            for group in optimiser.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate * share)
                else:
                    group["lr"] = rate * share

    def prepare(self, iteration: int) -> None:
        """Puts the random numbers of an iteration where `iterate` reads them."""
        block, offset = divmod(iteration, BLOCK)
        if self._block is None or self._block[0] != block:
            self._block = (block, self._draw(block))
        for name, values in self._block[1].items():
            if name in self.drawn:
                self.drawn[name].copy_(values[offset])
            else:
                self.drawn[name] = values[offset].clone()

    def _draw(self, block: int) -> dict[str, Tensor]:
        """`[BLOCK, ...]` of everything random, each lesion from its own stream."""
        s = self.settings
        streams = [generator_for(self.device, self.seed + k, self.scale, block) for k in range(self.lesions)]

        def normal(size: tuple[int, ...], batch: int, channels: int) -> Tensor:
            shape = (BLOCK, batch, channels, *size)
            drawn = [torch.randn(shape, generator=g, device=self.device) for g in streams]
            return torch.cat(drawn, dim=2)  # [BLOCK, B, K c, *size]

        def index(most: int) -> Tensor:
            drawn = [torch.randint(most, (BLOCK, s.batch, 1), generator=g, device=self.device) for g in streams]
            return torch.cat(drawn, dim=2)  # [BLOCK, B, K]

        from_noise = s.start == "noise"
        first = 1 if from_noise else CHANNELS  # official: one map of noise for all channels at the first scale
        found = {"z": normal(self.size, s.batch, first if self.scale == 0 else CHANNELS)}
        if self.data.lower is None:
            for d in range(s.d_steps):
                for below in range(self.scale):
                    found[f"lower.{d}.{below}"] = normal(self.chain.sizes[below], 1, CHANNELS if below else first)
        else:
            found["lower"] = index(len(self.data.lower))
        if len(self.data.reals) > 1:
            found["real"] = index(len(self.data.reals))
            # every other time the lesion itself
            found["back"] = torch.relu(index(2 * len(self.data.reals))[:, :1] - len(self.data.reals))
        if s.adversary == "wgan-gp":
            mix = [torch.rand((BLOCK, s.d_steps, 1), generator=g, device=self.device) for g in streams]
            found["mix"] = torch.cat(mix, dim=2)
        return found

    def iterate(self) -> None:
        """One iteration with the numbers that `prepare` laid out."""
        if self._graph is None:
            self._iterate()
        else:
            self._graph.replay()

    def capture(self) -> None:
        """Records the iteration as a CUDA graph; a few ordinary iterations must have run before."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(self.device)):  # of another device it would hold nothing
            self._iterate()
        self._graph = graph

    def _iterate(self) -> None:
        s, drawn = self.settings, self.drawn
        noise = self._all_channels(drawn["z"]) * self.data.amplitude
        image = self.data.fixed[:1]
        for d in range(s.d_steps):
            image = self._image_below(d)
            with torch.no_grad():
                fake = self._generate(noise, image)
            gap, d_loss = self._update_critic(fake, d)
        for _ in range(s.g_steps):
            g_loss, rec = self._update_generator(noise, image)
        if self.average:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.generator.parameters()), 1 - s.average)
        for row, value in enumerate((gap, d_loss, g_loss, rec)):
            self.metrics[row].copy_(value.detach())

    def _image_below(self, d: int) -> Tensor:
        if self.data.lower is not None:
            return self._pick(self.data.lower, self.drawn["lower"])
        noises = [self._all_channels(self.drawn[f"lower.{d}.{below}"]) for below in range(self.scale)]
        empty = torch.zeros(1, self.lesions * CHANNELS, *self.chain.sizes[0], device=self.device)
        return self.chain(empty, noises)

    def _all_channels(self, noise: Tensor) -> Tensor:
        """One map a lesion becomes one for each channel."""
        return noise.repeat_interleave(CHANNELS, dim=1) if noise.shape[1] == self.lesions else noise

    def _pick(self, images: Tensor, index: Tensor) -> Tensor:
        """`[B, K 2, *size]`, for each lesion its own choice (`index` `[B, K]`) of `[M, K 2, *size]`."""
        apart = images.view(len(images), self.lesions, CHANNELS, *self.size)
        chosen: Tensor = apart[index, self._every_lesion]
        return chosen.flatten(1, 2)

    def _update_critic(self, fake: Tensor, d: int) -> tuple[Tensor, Tensor]:
        s, reals = self.settings, self.data.reals
        real = reals if len(reals) == 1 else self._pick(reals, self.drawn["real"])
        self.critic.power_iteration()
        if s.adversary == "hinge":
            both = self._judge(torch.cat([real, fake]))
            on_real, on_fake = both[: len(real)], both[len(real) :]
            loss = per_lesion(functional.relu(1 - on_real)) + per_lesion(functional.relu(1 + on_fake))
        else:
            on_real, on_fake = self._judge(real), self._judge(fake)
            loss = per_lesion(on_fake) - per_lesion(on_real)
            loss = loss + s.gradient_penalty * self._penalty(real, fake, d)
        update(self.d_optimiser, loss.sum())
        return per_lesion(on_real) - per_lesion(on_fake), loss

    def _penalty(self, real: Tensor, fake: Tensor, d: int) -> Tensor:
        """(norm - 1)^2 of the critic's gradient, the norm over a lesion's channels in each pixel."""
        share = self.drawn["mix"][d].repeat_interleave(CHANNELS).view(1, -1, *(1,) * len(self.size))
        between = (share * real + (1 - share) * fake).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._judge(between).sum(), between, create_graph=True)
        norm = slope.view(len(slope), self.lesions, CHANNELS, *self.size).norm(dim=2)
        return per_lesion((norm - 1) ** 2)

    def _update_generator(self, noise: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        s, data = self.settings, self.data
        fixed, wanted = data.fixed, data.reals
        if len(wanted) > 1:
            fixed, wanted = self._pick(fixed, self.drawn["back"]), self._pick(wanted, self.drawn["back"])
        fake, back = self._fake_and_back(noise, image, fixed)
        adversarial = -per_lesion(self._judge(fake))
        rec = per_lesion((back - wanted) ** 2, channels=CHANNELS)
        loss = s.adversarial * adversarial + s.reconstruction * rec
        if s.low_pass > 0:
            loss = loss + s.low_pass * per_lesion(blur(fake - image, COARSE) ** 2, channels=CHANNELS)
        update(self.g_optimiser, loss.sum())
        return loss, rec

    def _fake_and_back(self, noise: Tensor, image: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        if self.settings.batch_norm:  # apart, since a batch shares its moments
            return self._generate(noise, image), self._generate(self.data.fixed_noise, fixed)
        both = self._generate(torch.cat([noise, self.data.fixed_noise]), torch.cat([image, fixed]))
        return both[:-1], both[-1:]

    def _generate(self, noise: Tensor, image: Tensor) -> Tensor:
        with self._autocast():
            return run_generator(self.settings, self.generator, noise, image)

    def _judge(self, images: Tensor) -> Tensor:
        """`[B, K, *space]`, one verdict for every patch."""
        if self.settings.high_pass:
            parts = (
                images.unflatten(1, (self.lesions, CHANNELS)),
                (self._texture(images) * self.texture_gain)[:, :, None],
            )
            images = torch.cat(parts, dim=2).flatten(1, 2)
        # the official critic sees no edge; a lesion of few voxels is judged at its rim, too
        pad = 0 if self.settings.pad_outside else self.settings.layers // 2
        with self._autocast():
            verdict: Tensor = self.critic(functional.pad(images, (pad, pad) * len(self.size)))
        return verdict.to(images.dtype)

    def _channel(self, images: Tensor, channel: int) -> Tensor:
        apart: Tensor = images.unflatten(1, (self.lesions, CHANNELS))
        return apart[:, :, channel]

    def _texture(self, images: Tensor) -> Tensor:
        """`[B, K, *space]`: fine variation of the intensity inside the matte."""
        intensity = self._channel(images, 0)
        return (intensity - blur(intensity, FINE)) * self._channel(images, 1).clamp(0, 1)

    def _autocast(self) -> torch.autocast:
        # no cache: a graph must cast the weights anew
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16, cache_enabled=False)

    def trained_state(self) -> dict[str, Tensor]:
        """The generator's weights to keep: their moving average where the preset has one."""
        state = {name: value.detach().clone() for name, value in self.generator.state_dict().items()}
        names = [name for name, _ in self.generator.named_parameters()]
        return state | {name: value.clone() for name, value in zip(names, self.average, strict=False)}

    def take_over(self, before: Scale) -> None:
        """The weights of the scale before, where the widths agree."""
        if before.generator.width == self.generator.width:
            self.generator.load_state_dict(before.trained_state())
            self.critic.load_state_dict(before.critic.state_dict())
            self.average = [value.clone() for value in before.average]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that changes in training, by name."""
        yield from ((f"average.{number}", value) for number, value in enumerate(self.average))
        for part, net, optimiser in (
            ("g", self.generator, self.g_optimiser),
            ("d", self.critic, self.d_optimiser),
        ):
            for name, value in net.state_dict().items():
                yield f"{part}.{name}", value
            for name, parameter in net.named_parameters():
                for moment, value in optimiser.state.get(parameter, {}).items():
                    yield f"{part}-{moment}.{name}", value

    def restore(self, stored: dict[str, Tensor]) -> None:
        """Takes back what `tensors` gave.

        Raises:
            KeyError: something is missing.
        """
        self.average = [stored[f"average.{number}"].to(self.device) for number in range(len(self.average))]
        for part, net, optimiser in (
            ("g", self.generator, self.g_optimiser),
            ("d", self.critic, self.d_optimiser),
        ):
            net.load_state_dict({name: stored[f"{part}.{name}"] for name in net.state_dict()})
            for name, parameter in net.named_parameters():
                keys = {m: f"{part}-{m}.{name}" for m in ("step", "exp_avg", "exp_avg_sq")}
                if keys["step"] in stored:
                    home = {m: self.device if m != "step" or self.device.type == "cuda" else "cpu" for m in keys}
                    optimiser.state[parameter] = {m: stored[key].clone().to(home[m]) for m, key in keys.items()}

    def choose_form(self) -> None:
        """On a GPU, several lesions: the faster of grouped and block-diagonal convolutions."""
        image = torch.cat([self.data.reals[:1]] * (2 * self.settings.batch))
        seconds = {}
        for dense in (False, True):
            for net in (self.generator, self.critic):
                net.use_dense(dense)

            def run() -> None:
                loss = self._judge(self._generate(torch.zeros_like(image), image)).sum()
                torch.autograd.grad(loss, list(self.generator.parameters()) + list(self.critic.parameters()))

            training = self.generator.training
            self.generator.eval()
            self.critic.eval()
            seconds[dense] = seconds_on_gpu(run, self.device)
            self.generator.train(training)
            self.critic.train(training)
        for net in (self.generator, self.critic):
            net.use_dense(seconds[True] < seconds[False])


def per_lesion(values: Tensor, channels: int = 1) -> Tensor:
    """Mean over batch, a lesion's channels and space, `[K]`."""
    apart: Tensor = values.unflatten(1, (-1, channels))
    return apart.mean(dim=(0, *range(2, apart.ndim)))


def update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step along the gradient of the optimiser's own parameters only; those that the loss leaves out stay."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = slope
    optimiser.step()
