"""Two-track displaced vertices as a trigger at a forward detector sees them: a toy, not detector data.

Each candidate is a pair of charged tracks, a vertex fitted to them, and the primary vertex (PV) of the collision at
the origin. Lengths are in mm, momenta and masses in GeV, times in ps; z is along the beam, c = 0.2998 mm/ps.

Kinds of candidates
    beauty   a hadron of 5.28 GeV and 1.52 ps; in half of the decays the second track comes from a charm hadron
             (1.87 GeV, 0.6 ps) that flew on, so that a true signal need not have a good vertex.
    charm    a hadron of 1.87 GeV and 0.6 ps (between those of D0 and D+).
    strange  a hadron of 0.498 GeV and 89.5 ps (K0_S), in two tracks: soft and far away.
    prompt   two tracks straight from the PV.

How they are drawn. A hadron's transverse momentum has density ~ p_T (1 + p_T^2 / p_0^2)^(-n), its pseudorapidity is
even on [2, 5], its proper time t exponential, and it flies (p / m) c t. Beauty and charm decay to two tracks and an
unseen rest, all massless and even in phase space; strange hadrons to two massless tracks. Prompt tracks have the
same form of p_T spectrum and are even in pseudorapidity.

How they are measured. A track is a straight line; near its origin it is displaced in x and in y, each by a normal
error of standard deviation

    sigma(p_T)  =  0.015 mm + 0.029 mm GeV / p_T                  (impact parameter, LHCb, arXiv 1412.6352)

and, with probability 3 %, by five times that: a badly measured track, of which the fit knows nothing. The PV is
known to 0.013 mm in x and y and 0.071 mm in z, momenta to 0.5 %. The vertex minimises the chi^2 of both lines (one
degree of freedom), its flight distance has the chi^2 of the full covariance of both vertices (three), and so has
each track's impact parameter (two). All of these are in closed form.

Preselection, after that of the published study's code: tracks in 2 <= eta <= 5 with p_T > 0.2 GeV, the pair's
p_T > 1 GeV, vertex chi^2 < 20, and a true origin within 500 mm along and 30 mm across the beam, where the vertex
detector is.

Features and directions follow Kitouni, Nolte, Williams (arXiv 2112.00038, section on the LHCb trigger); errors are
those published for LHCb, spectra and shares are rough. What is absent: magnetic field, pile-up, material, errors of
slopes, fake tracks, all correlations between candidates of one collision.

Shapes: N candidates; vectors (N, 3), four-momenta (N, 4) as (E, px, py, pz).
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

LIGHT = 0.299792458  # mm/ps
KINDS = ("beauty", "charm", "strange", "prompt")
FEATURES = ("log χ² of flight distance", "sum of p_T [GeV]", "vertex χ²", "log smallest IP χ²")
DIRECTIONS = (1, 1, 0, 1)  # more displaced and harder must never be worse; the vertex chi^2 is left free
# Shares of the preselected background, chosen and not measured. What an unconstrained classifier does with signal far
# away depends on the strange share: with none, it sees no background there, and keeps all of it.
BACKGROUND = {"prompt": 0.85, "charm": 0.12, "strange": 0.03}
ETA = (2.0, 5.0)
LEAST_TRACK_PT, LEAST_PAIR_PT, LARGEST_VERTEX_CHI2 = 0.2, 1.0, 20.0
FARTHEST_Z, FARTHEST_RADIUS = 500.0, 30.0  # mm
SMALLEST_CHI2 = 1e-10  # below, the logarithm is cut off
BLOCK = 1 << 15  # candidates drawn at a time: fits the cache


@dataclasses.dataclass(frozen=True)
class Hadron:
    """A decaying hadron: mass [GeV], mean lifetime [ps], p_0 [GeV] and n of its p_T spectrum."""

    mass: float
    lifetime: float
    scale: float
    power: float
    two_body: bool = False


HADRONS = {
    "beauty": Hadron(5.28, 1.52, 6.0, 3.0),
    "charm": Hadron(1.87, 0.6, 3.0, 3.2),
    "strange": Hadron(0.498, 89.5, 1.2, 4.0, two_body=True),
}
PROMPT_SPECTRUM = (0.9, 4.0)  # p_0 [GeV] and n of prompt tracks
CASCADE_SHARE, CASCADE_MASS, CASCADE_LIFETIME = 0.5, 1.87, 0.6


@dataclasses.dataclass(frozen=True)
class Detector:
    """How well the detector measures, and how well it knows that.

    Attributes:
        ip_constant: mm, ``ip_over_pt``: mm GeV, of the error of a track across the beam.
        pv_across, pv_along: mm, errors of the primary vertex.
        momentum: relative error of p_T.
        bad_share, bad_factor: share of tracks whose error is larger by this factor without anyone knowing.
        resolution: factor on the errors of the tracks, which the fit knows.
        unknown: another factor on them which the fit does *not* know, as after a misalignment.
    """

    ip_constant: float = 0.015
    ip_over_pt: float = 0.029
    pv_across: float = 0.013
    pv_along: float = 0.071
    momentum: float = 0.005
    bad_share: float = 0.03
    bad_factor: float = 5.0
    resolution: float = 1.0
    unknown: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} of the detector is {value}; it must be finite and not negative")
        if not 0.0 <= self.bad_share <= 1.0:
            raise ValueError(f"bad_share is {self.bad_share}; a share is between 0 and 1")
        for name in ("ip_constant", "pv_across", "pv_along", "resolution"):
            if getattr(self, name) == 0.0:
                raise ValueError(f"{name} of the detector is 0; chi^2 divides by it, so make it positive")

    def track_error(self, pt: np.ndarray) -> np.ndarray:
        """Return the error [mm] across the beam that the fit assumes, at transverse momenta ``pt`` [GeV]."""
        return self.resolution * (self.ip_constant + self.ip_over_pt / pt)


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Preselected candidates.

    Attributes:
        features: (N, 4) float64, in the order of :data:`FEATURES`.
        kind: (N,) int8, index into :data:`KINDS`.
        lifetime: (N,) true proper time [ps] of the hadron; 0 for prompt.
        flight: (N,) true flight distance [mm]; 0 for prompt.
    """

    features: np.ndarray
    kind: np.ndarray
    lifetime: np.ndarray
    flight: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def signal(self) -> np.ndarray:
        """(N,) bool: whether a candidate is beauty."""
        return self.kind == KINDS.index("beauty")

    def __getitem__(self, rows: np.ndarray | slice) -> "Candidates":
        return Candidates(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def generate(
    kind: str,
    count: int,
    *,
    seed: int | tuple[int, ...],
    detector: Detector | None = None,
    lifetimes: tuple[float, float] | None = None,
) -> Candidates:
    """Return ``count`` preselected candidates of one kind.

    Args:
        kind: one of :data:`KINDS`.
        count: how many pass the preselection.
        seed: equal arguments give equal candidates.
        detector: default the nominal one.
        lifetimes: draw proper times [ps] evenly in their logarithm between these two instead of exponentially.

    Raises:
        ValueError: for an unknown kind, no candidates, lifetimes that are no interval or of prompt tracks.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r} of candidates; choose from {', '.join(KINDS)}")
    if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"count is {count!r}; ask for at least one candidate, as an integer")
    if lifetimes is not None and (kind == "prompt" or not 0.0 < lifetimes[0] < lifetimes[1] < math.inf):
        raise ValueError(f"lifetimes {lifetimes} must be 0 < low < high, and prompt tracks have none")
    rng = np.random.default_rng(seed)
    detector = detector or Detector()
    blocks, found = [], 0
    while found < count:
        block = _block(kind, rng, detector, lifetimes)
        blocks.append(block)
        found += len(block)
    return _join(blocks)[:count]


def generate_mixture(
    counts: Mapping[str, int], *, seed: int | tuple[int, ...], detector: Detector | None = None
) -> Candidates:
    """Return candidates of several kinds (kind -> how many), shuffled.

    Raises:
        ValueError: if nothing is asked for, or as :func:`generate`.
    """
    if not counts:
        raise ValueError("ask for at least one kind of candidates")
    seeds = (seed,) if isinstance(seed, int | np.integer) else tuple(seed)
    parts = [  # from 1 on: NumPy takes a seed that ends in 0 for the one without it
        generate(kind, number, seed=(*seeds, 1 + KINDS.index(kind)), detector=detector)
        for kind, number in counts.items()
    ]
    made = _join(parts)
    return made[np.random.default_rng((*seeds, 1 + len(KINDS))).permutation(len(made))]


def background_counts(count: int, strange: float = BACKGROUND["strange"]) -> dict[str, int]:
    """Return kind -> how many of ``count`` background candidates, in the shares of :data:`BACKGROUND`.

    Args:
        count: of all kinds.
        strange: another share of strange hadrons; prompt candidates make up for the difference.

    Raises:
        ValueError: if the share leaves no room for charm.
    """
    if not 0.0 <= strange <= 1.0 - BACKGROUND["charm"]:
        raise ValueError(f"a strange share of {strange} does not fit beside {BACKGROUND['charm']} of charm")
    counts = {"charm": round(BACKGROUND["charm"] * count), "strange": round(strange * count)}
    counts = {"prompt": count - sum(counts.values())} | counts
    return {kind: number for kind, number in counts.items() if number}


def _block(
    kind: str, rng: np.random.Generator, detector: Detector, lifetimes: tuple[float, float] | None
) -> Candidates:
    """Return those of BLOCK candidates that pass the preselection."""
    if kind == "prompt":
        first, second = (_massless(rng, *PROMPT_SPECTRUM) for _ in range(2))
        origins, lifetime = np.zeros((2, BLOCK, 3)), np.zeros(BLOCK)
    else:
        first, second, origins, lifetime = _decays(kind, rng, lifetimes)
    return _measure(KINDS.index(kind), np.stack([first, second]), origins, lifetime, rng, detector)


def _join(parts: list[Candidates]) -> Candidates:
    names = [field.name for field in dataclasses.fields(Candidates)]
    return Candidates(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _momenta(rng: np.random.Generator, scale: float, power: float) -> np.ndarray:
    """Draw momenta (N, 3): p_T with density ~ p_T (1 + p_T^2 / scale^2)^-power, the rest even in eta and azimuth."""
    pt = scale * np.sqrt((1.0 - rng.random(BLOCK)) ** (-1.0 / (power - 1.0)) - 1.0)  # by inversion
    eta = rng.uniform(*ETA, BLOCK)
    angle = rng.uniform(0.0, 2 * math.pi, BLOCK)
    return np.stack([pt * np.cos(angle), pt * np.sin(angle), pt * np.sinh(eta)], axis=1)


def _massless(rng: np.random.Generator, scale: float, power: float) -> np.ndarray:
    momenta = _momenta(rng, scale, power)
    return np.concatenate([np.linalg.norm(momenta, axis=1)[:, None], momenta], axis=1)


def _decays(
    kind: str, rng: np.random.Generator, lifetimes: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return four-momenta of both tracks (N, 4), their origins (2, N, 3) and the proper times (N,)."""
    hadron = HADRONS[kind]
    momenta = _momenta(rng, hadron.scale, hadron.power)
    energy = np.sqrt((momenta**2).sum(axis=1) + hadron.mass**2)
    if lifetimes is None:
        time = rng.exponential(hadron.lifetime, BLOCK)
    else:
        time = np.exp(rng.uniform(*np.log(lifetimes), BLOCK))
    # squared mass of the pair over that of the hadron: density 2 (1 - s) for three massless bodies
    share = np.ones(BLOCK) if hadron.two_body else 1.0 - np.sqrt(1.0 - rng.random(BLOCK))
    pair = hadron.mass * np.sqrt(share)
    recoil = 0.5 * hadron.mass * (1.0 - share)
    pair_momenta = recoil[:, None] * _directions(rng)
    half = (0.5 * pair)[:, None] * _directions(rng)
    tracks = []
    for sign in (1.0, -1.0):
        track = np.concatenate([(0.5 * pair)[:, None], sign * half], axis=1)
        track = _boost(track, pair_momenta, np.sqrt(pair**2 + recoil**2), pair)
        tracks.append(_boost(track, momenta, energy, np.full(BLOCK, hadron.mass)))
    origins = np.repeat((momenta * (LIGHT * time / hadron.mass)[:, None])[None], 2, axis=0)
    if kind == "beauty":
        onward = rng.exponential(CASCADE_LIFETIME, BLOCK) * (rng.random(BLOCK) < CASCADE_SHARE)
        origins[1] += (momenta - tracks[0][:, 1:]) * (LIGHT * onward / CASCADE_MASS)[:, None]
    return tracks[0], tracks[1], origins, time


def _directions(rng: np.random.Generator) -> np.ndarray:
    """Draw unit vectors (N, 3), even on the sphere."""
    cosine, angle = rng.uniform(-1.0, 1.0, BLOCK), rng.uniform(0.0, 2 * math.pi, BLOCK)
    sine = np.sqrt(1.0 - cosine**2)
    return np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], axis=1)


def _boost(vectors: np.ndarray, momenta: np.ndarray, energy: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return four-vectors (N, 4) given in the rest frame of (energy, momenta), as seen from outside."""
    mass = np.maximum(mass, 1e-12)  # a pair of no mass carries no momentum in its rest frame either
    along = np.einsum("ni,ni->n", vectors[:, 1:], momenta)
    boosted = np.empty_like(vectors)
    boosted[:, 0] = (energy * vectors[:, 0] + along) / mass
    boosted[:, 1:] = vectors[:, 1:] + ((vectors[:, 0] + along / (energy + mass)) / mass)[:, None] * momenta
    return boosted


def _measure(
    kind: int,
    tracks: np.ndarray,
    origins: np.ndarray,
    lifetime: np.ndarray,
    rng: np.random.Generator,
    detector: Detector,
) -> Candidates:
    """Return the features of tracks (2, N, 4) from origins (2, N, 3), those that pass the preselection."""
    true_pt = np.hypot(tracks[..., 1], tracks[..., 2])
    with np.errstate(divide="ignore", invalid="ignore"):  # tracks without momentum are dropped just below
        eta = np.arcsinh(tracks[..., 3] / true_pt)
    inside = (true_pt > LEAST_TRACK_PT) & (eta >= ETA[0]) & (eta <= ETA[1])
    inside &= (origins[..., 2] < FARTHEST_Z) & (np.hypot(origins[..., 0], origins[..., 1]) < FARTHEST_RADIUS)
    kept = inside.all(axis=0)
    tracks, origins, true_pt = tracks[:, kept], origins[:, kept], true_pt[:, kept]
    flight = np.linalg.norm(origins[0], axis=1)  # before the errors

    scale = 1.0 + detector.momentum * rng.standard_normal(true_pt.shape)
    transverse = tracks[..., 1:3] * scale[..., None]
    pt = true_pt * scale
    slopes = tracks[..., 1:3] / tracks[..., 3:]
    assumed = detector.track_error(true_pt)
    bad = rng.random(true_pt.shape) < detector.bad_share
    real = assumed * detector.unknown * np.where(bad, detector.bad_factor, 1.0)
    origins[..., :2] += real[..., None] * rng.standard_normal((*true_pt.shape, 2))
    primary = rng.standard_normal((true_pt.shape[1], 3))
    primary *= (detector.pv_across, detector.pv_across, detector.pv_along)

    vertex_chi2, flight_chi2 = fit_vertex(origins, slopes, assumed, primary, detector)
    least = np.min(impact_chi2(origins, slopes, assumed, primary, detector), axis=0)
    features = np.stack(
        [
            np.log(np.maximum(flight_chi2, SMALLEST_CHI2)),
            pt.sum(axis=0),
            vertex_chi2,
            np.log(np.maximum(least, SMALLEST_CHI2)),
        ],
        axis=1,
    )
    passed = (np.hypot(*transverse.sum(axis=0).T) > LEAST_PAIR_PT) & (vertex_chi2 < LARGEST_VERTEX_CHI2)
    passed &= (pt > LEAST_TRACK_PT).all(axis=0)
    count = int(passed.sum())
    return Candidates(features[passed], np.full(count, kind, np.int8), lifetime[kept][passed], flight[passed])


def fit_vertex(
    points: np.ndarray, slopes: np.ndarray, errors: np.ndarray, primary: np.ndarray, detector: Detector
) -> tuple[np.ndarray, np.ndarray]:
    """Return chi^2 of the vertex of two lines, and of its distance from the primary vertex.

    With weights w_i = 1 / sigma_i^2, W = w_1 + w_2, and lines x_i(z) = a_i + t_i z across the beam, the chi^2 of a
    vertex (x, z) is sum_i w_i |x - x_i(z)|^2. Its least value is (w_1 w_2 / W) times the squared distance of the
    lines perpendicular to t_1 - t_2, and the vertex found there has the covariance

        diag(1/W, 1/W, 0) + u u^T / s,     u = (mean slope, 1),     s = (w_1 w_2 / W) |t_1 - t_2|^2.

    The distance d from the primary vertex has that covariance plus D' of the latter, so that with
    D = diag(1/W, 1/W, 0) + D' its chi^2 is d^T D^-1 d - (u^T D^-1 d)^2 / (s + u^T D^-1 u)   (Sherman-Morrison).

    Args:
        points: (2, N, 3), a point [mm] on each line.
        slopes: (2, N, 2), dx/dz and dy/dz.
        errors: (2, N) sigma [mm] of each line across the beam.
        primary: (N, 3) measured primary vertex [mm].
        detector: its errors.

    Returns:
        (N,) twice; parallel lines have their vertex at the primary vertex's z.
    """
    weights = errors**-2.0
    total = weights.sum(axis=0)
    reduced = weights[0] * weights[1] / total
    at = points[..., :2] + slopes * (primary[:, 2] - points[..., 2])[..., None]  # where z is that of the PV
    gap, turn = at[0] - at[1], slopes[0] - slopes[1]
    opening = (turn**2).sum(axis=1)
    parallel = opening == 0.0
    opening = np.where(parallel, 1.0, opening)
    z = np.where(parallel, 0.0, -(gap * turn).sum(axis=1) / opening)
    rest = gap + turn * z[:, None]
    vertex_chi2 = reduced * (rest**2).sum(axis=1)

    mean = (weights[..., None] * slopes).sum(axis=0) / total[:, None]
    across = (weights[..., None] * (at + slopes * z[:, None])).sum(axis=0) / total[:, None] - primary[:, :2]
    variance, along = 1.0 / total + detector.pv_across**2, detector.pv_along**2
    plain = (across**2).sum(axis=1) / variance + z**2 / along
    shared = (mean * across).sum(axis=1) / variance + z / along
    spread = (mean**2).sum(axis=1) / variance + 1.0 / along
    stiffness = np.where(parallel, 0.0, reduced * opening)
    return vertex_chi2, plain - shared**2 / (stiffness + spread)


def impact_chi2(
    points: np.ndarray, slopes: np.ndarray, errors: np.ndarray, primary: np.ndarray, detector: Detector
) -> np.ndarray:
    """Return chi^2 (2, N) of each line's distance from the primary vertex across the beam; as :func:`fit_vertex`.

    With r the distance at the primary vertex's z and v = sigma^2 + sigma_xy^2, its covariance is
    v 1 + sigma_z^2 t t^T, so that (Sherman-Morrison)

        chi^2  =  (|r|^2 - sigma_z^2 (r.t)^2 / (v + sigma_z^2 |t|^2)) / v.
    """
    gap = points[..., :2] + slopes * (primary[:, 2] - points[..., 2])[..., None] - primary[:, :2]
    variance = errors**2 + detector.pv_across**2
    share = detector.pv_along**2 / (variance + detector.pv_along**2 * (slopes**2).sum(axis=2))
    return ((gap**2).sum(axis=2) - share * (gap * slopes).sum(axis=2) ** 2) / variance
