"""Hadamard matrices, scaled to be orthogonal.

Source: Sylvester, 1867, for powers of two; Paley, "On Orthogonal Matrices", 1933, construction I, for orders q + 1
where q is a prime and q = 3 (mod 4). The Kronecker product of two of them is another one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def hadamard(size: int) -> Floats | None:
    """A matrix [size, size] of entries size^-0.5 and -size^-0.5 with orthogonal rows; None if none is known here.

    It is the Kronecker product of a Paley matrix, as small as possible, and a power of two.
    """
    twos = (size & -size).bit_length() - 1
    odd = size >> twos
    for exponent in range(twos + 1):
        order = odd << exponent
        if order == 1 or _has_paley(order):
            first = np.ones((1, 1)) if order == 1 else _paley(order)
            matrix: Floats = np.kron(first, _sylvester(twos - exponent)) / np.sqrt(size)
            return matrix
    return None


def _sylvester(exponent: int) -> Floats:
    matrix = np.ones((1, 1))
    for _ in range(exponent):
        matrix = np.kron(matrix, np.array([[1.0, 1.0], [1.0, -1.0]]))
    return matrix


def _has_paley(order: int) -> bool:
    prime = order - 1
    return prime % 4 == 3 and all(prime % divisor for divisor in range(3, int(prime**0.5) + 1, 2))


def _paley(order: int) -> Floats:
    """I + S, where S is skew-symmetric, from the quadratic residues modulo the prime order - 1."""
    prime = order - 1
    residues = np.full(prime, -1.0)
    residues[np.arange(1, prime) ** 2 % prime] = 1
    residues[0] = 0
    skew = np.zeros((order, order))
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = residues[(np.arange(prime)[None] - np.arange(prime)[:, None]) % prime]
    return skew + np.eye(order)
