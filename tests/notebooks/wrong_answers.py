"""Plausible wrong answers to exercises: a solution with one line turned wrong, which its checker must refuse."""

# notebook -> (number of the solution, what is right there, what takes its place)
WRONG: dict[str, list[tuple[int, str, str]]] = {
    "00_start_here": [
        (
            1,
            "budget // len(classes) + (place < budget % len(classes))",
            "round(budget * np.mean(labels == classes[place]))",
        ),
        (1, "rng.permutation(np.flatnonzero(labels == label))", "np.flatnonzero(labels == label)"),
        (2, "budget * budget / n", "budget / n"),
        (2, "budget * budget / n", "budget * (budget - 1) / n"),
    ],
    "01_class_sensitivity": [
        (1, "curve.error(target / 2) - curve.error(target)", "curve.error(target) - curve.error(2 * target)"),
        (3, "np.stack([one[:, rng.permutation(one.shape[1])] for one in errors])", "errors"),
        (3, "np.stack([one[:, rng.permutation(one.shape[1])] for one in errors])", "rng.permutation(errors, axis=2)"),
        (3, "np.stack([one[:, rng.permutation(one.shape[1])] for one in errors])", "rng.permuted(errors, axis=2)"),
        (3, "np.stack([one[:, rng.permutation(one.shape[1])] for one in errors])", "rng.permutation(errors, axis=1)"),
        (4, "(values < v).sum() + ((values == v).sum() - 1) / 2", "(values < v).sum()"),
    ],
    "02_patchify": [
        (1, "filled[dropped].astype(float)", "filled[dropped]"),
        (1, "filled[dropped].astype(float) - images[dropped]", "filled.astype(float) - images"),
        (1, "10 * np.log10(255**2 / np.mean(error**2))", "np.log10(255**2 / error**2).mean() * 10"),
        (3, "adaptive.kept.mean()", "(~adaptive.kept).mean()"),
        (
            4,
            'np.argsort(score, axis=1, kind="stable")[:, :n_out]',
            'np.argsort(score, axis=1, kind="stable")[:, -n_out:]',
        ),
        (4, "min(round(theta * score.shape[1]), score.shape[1] - 1)", "int(theta * score.shape[1])"),
    ],
    "03_features_and_bins": [
        (2, "cosines[second], cosines.min()", "cosines[second], np.median(cosines)"),
        (4, "w - z[picked[-1]]", "w - z[picked[-1]] / 2"),
    ],
    "04_class_budget": [
        (1, "power_law_counts(a3, b3, 12)", "np.array([4, 4, 4])"),
        (3, "halfway = 0.5", "halfway = 0.4"),
        (4, "a * (counts**-b - (counts + 1.0) ** -b)", "a * counts**-b"),
    ],
    "05_active_sampling": [
        (1, "0.3 * as_class[0] + 0.7 * as_class[1]", "0.5 * as_class[0] + 0.5 * as_class[1]"),
        (2, "higher[labels[taken][:, None] == labels[left][None]].mean()", "higher.mean()"),
        (2, "scores[taken][:, None] > scores[left][None]", "scores[taken][:, None] < scores[left][None]"),
        (4, "probabilities[rows, labels] - others.max(axis=1)", "probabilities[rows, labels]"),
        (4, "np.argsort(margins,", "np.argsort(-margins,"),
    ],
    "06_train_and_evaluate": [
        (1, "- 2 * one.cov(two)", "- one.cov(two)"),
        (
            2,
            'flattery["best_accuracy"] - flattery["accuracy"]',
            'flattery["accuracy"] - flattery["best_accuracy"] - 1e-9',
        ),
        (3, "1.96 * drawn.std()", "drawn.std()"),
        (4, "np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))", "np.sort(p) * np.arange(len(p), 0, -1)"),
        (4, "np.arange(len(p), 0, -1)", "len(p)"),
    ],
    "12_choices": [
        (1, "here.drop(index=seed).mean()", "here.loc[seed]"),
        (1, "here.drop(index=seed).mean()", "here.mean()"),
        (2, "0.8 * len(pool)", "0.5 * len(pool)"),
        (3, ".max(axis=1).mean()", ".max()"),
    ],
    "13_all_methods": [
        (1, "/ len(sets[one]) for", "/ len(sets[one] | sets[other]) for"),
        (2, 'method=Herding(balance="free")', "method=Herding()"),
        (3, "rng.integers(1, n_classes, len(wrong))", "rng.integers(0, n_classes, len(wrong))"),
        (3, "rng.integers(1, n_classes, len(wrong))", "1"),
        (3, "rng.permutation(len(labels))[: len(labels) // 10]", "np.arange(len(labels) // 10)"),
        (4, "nearest = np.minimum(nearest, np.linalg.norm(h - h[picks[-1]], axis=1))", "nearest[picks[-1]] = 0"),
    ],
    "14_your_own_method": [
        (1, 'generator(pool.seed, "shuffled", i)', 'generator(0, "shuffled", i)'),
        (1, 'generator(pool.seed, "shuffled", i)', "np.random.default_rng()"),
        (2, "ordered[: max(count, round(0.9 * len(rows)))]", "ordered[round(0.1 * len(rows)) :]"),
        (3, "range(3, 21)", "[20]"),
        (4, "top[:, -1] - top[:, -2]", "top[:, -1] - top[:, 0]"),
    ],
}
