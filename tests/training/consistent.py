"""A user's method whose inner problem, |S(x') - S(x)|^2, is flat at x, which it does not say."""

from typing_extensions import override

from rkdsearch.methods import Loss, Method, Role, Step


class Consistent(Method):
    """Labels, and equal logits in the whole ball."""

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        clean = step.student.eval_logits(step.x)
        x_adv = step.maximize(lambda x: (step.student(x) - clean).square().sum(dim=1))
        step.memory["steps"] = step.memory.get("steps", step.x.new_zeros(())) + 1
        logits = step.student(step.x)
        return Loss.weighted(
            label=(1.0, step.label_loss(logits)),
            consistency=(1.0, (step.student(x_adv) - logits).square().sum(dim=1)),
        )
