"""The losses that the published heads were trained with, on logits and target distributions.

Belongs here: formulas on tensors. Does not belong here: loops, schedules or data.

Every loss takes targets that are distributions (hard, smoothed or soft) and class weights. The weight of an example is
the mean of the class weights under its target, and it multiplies the example's loss. The published code multiplied the
target itself by the class weights before taking its largest entry, which can turn a soft target over to a rarer class,
and fitted the Gaussian to the weighted target, so that rare classes got larger means instead of larger losses
(reference code, `loss.py`, EmotionNLLLossStable); here the target stays what it is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(targets: Tensor) -> Tensor:
    """Weights [c] = n / (c n_c), n_c by the largest entry, as scikit-learn's "balanced"; 0 for a class without example.

    Args:
        targets: [n, c].
    """
    counts = torch.bincount(targets.argmax(-1), minlength=targets.shape[-1]).to(targets.dtype)
    return torch.where(counts > 0, len(targets) / (targets.shape[-1] * counts.clamp(min=1)), 0.0)


def smoothed(targets: Tensor, amount: float) -> Tensor:
    """(1 - amount) target + amount / c."""
    return (1 - amount) * targets + amount / targets.shape[-1]


def balanced_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over examples of w(t) * -sum_c t_c log p_c, where w(t) = sum_c t_c w_c.

    Args:
        logits: [n, c].
        targets: distributions [n, c].
        weights: class weights [c].
    """
    loss = -(targets * logits.log_softmax(-1)).sum(-1)
    return ((targets @ weights) * loss).mean()


def soft_focal(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float = 2.0, smoothing: float = 0.1) -> Tensor:
    """Mean over examples of w(t) * -sum_c s_c (1 - p_c)^gamma log p_c, with s the smoothed target.

    Focal loss (Lin et al. 2017) for soft targets, as the published ReBiLSTM was trained (gamma 2, smoothing 0.1).

    Args:
        logits: [n, c].
        targets: distributions [n, c].
        weights: class weights [c].
        gamma: how much examples that are already right are let off.
        smoothing: share of the target that is spread over all classes.
    """
    log_p = logits.log_softmax(-1)
    loss = -(smoothed(targets, smoothing) * (1 - log_p.exp()) ** gamma * log_p).sum(-1)
    return ((targets @ weights) * loss).mean()


def uncertainty(
    means: Tensor,
    log_variances: Tensor,
    targets: Tensor,
    weights: Tensor,
    divergence: float,
    penalty: float = 0.01,
    temperature: float = 1.5,
) -> Tensor:
    """Gaussian negative log-likelihood of the target, a divergence, and a penalty on log-variances.

    Mean over examples of w(t) * (sum_c [(t_c - mu_c)^2 / var_c + log var_c] + divergence * KL(t || softmax(mu / T)))
    plus penalty * mean(log var^2). Published: divergence 0.01 while warming up and 0.5 after, penalty 0.01, T 1.5.

    Args:
        means: [n, c].
        log_variances: [n, c].
        targets: distributions [n, c].
        weights: class weights [c].
        divergence: weight of the divergence.
        penalty: weight of the penalty.
        temperature: T.
    """
    likelihood = ((targets - means) ** 2 / log_variances.exp() + log_variances).sum(-1)
    log_p = (means / temperature).log_softmax(-1)
    apart = (torch.xlogy(targets, targets) - targets * log_p).sum(-1)
    return ((targets @ weights) * (likelihood + divergence * apart)).mean() + penalty * (log_variances**2).mean()
