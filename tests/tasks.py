from rkdsearch.task import ImageTask


def square(*, classes: int, channels: int, size: int) -> ImageTask:
    return ImageTask(classes=classes, channels=channels, height=size, width=size)


DIGITS = square(classes=10, channels=1, size=8)
CIFAR10 = square(classes=10, channels=3, size=32)
