from rkdsearch.reporting import labels

FRAME = (400.0, 300.0)


def test_a_lonely_label_stands_to_the_right() -> None:
    assert labels.place([(200, 150)], ["RSLAD"], [(200, 150)], FRAME) == ["right"]


def test_a_label_avoids_marks_and_the_frame() -> None:
    marks = [(200, 150), (225, 150)]
    assert labels.place([(200, 150)], ["RSLAD"], marks, FRAME) == ["left"]
    assert labels.place([(390, 150)], ["RSLAD"], [(390, 150)], FRAME) == ["left"]


def test_two_labels_do_not_cover_each_other() -> None:
    sides = labels.place(
        [(200, 150), (200, 153)], ["first", "second"], [(200, 150), (200, 153)], FRAME
    )
    assert sides == ["right", "left"]


def test_a_label_without_room_is_left_out() -> None:
    crowd = [(200 + 10 * x, 150 + 10 * y) for x in range(-6, 7) for y in range(-3, 4)]
    assert labels.place([(200, 150)], ["RSLAD"], crowd, FRAME) == [None]
    assert labels.place([(-50, 150)], ["outside"], [], FRAME) == [None]


def test_the_edge_of_a_front_goes_down_then_right() -> None:
    assert labels.along([(0, 0), (16, 8)]) == [(0, 0), (0, 8), (0, 8), (8, 8), (16, 8)]


def test_a_bar_is_avoided_along_its_whole_length() -> None:
    bar = labels.between((120, 150), (280, 150))
    assert len(bar) == 21
    assert labels.place([(200, 150)], ["RSLAD"], [(200, 150), *bar], FRAME) == ["top"]
    assert labels.between((3, 4), (3, 4)) == [(3, 4)]
    assert labels.between((0, 0), (0, 20)) == [(0, 0), (0, 8), (0, 16)]
