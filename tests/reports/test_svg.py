import re

from hypothesis import given
from hypothesis import strategies as st

from flames.reports.heatmap import heatmap
from flames.reports.svg import Dot, Line, forest_plot, line_chart, ticks


@given(
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.floats(1e-3, 1e6, allow_subnormal=False),
)
def test_ticks_cover_the_numbers_and_stay_few(low, span):
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 9
    assert found == sorted(set(found))
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span - 1e-6 * span


@given(st.integers(1, 400))
def test_rounds_are_marked_at_whole_numbers_from_the_first_to_within_the_last(last):
    found = ticks(1, last, whole=True)
    assert 1 <= len(found) <= 7
    assert all(tick == int(tick) and 1 <= tick <= last for tick in found)


def test_a_point_lies_where_its_numbers_say():
    line = Line("a", [(1, 0.0), (3, 1.0), (5, 0.25)])
    svg = line_chart([line], title="t", rounds=(1, 5), bounds=(0, 1))
    # 340 wide less 40 and 10, 200 high less 12 and 30: a quarter up is 170 − 158/4 = 130.5
    assert 'points="40.0,170.0 185.0,12.0 330.0,130.5"' in svg


def test_a_single_round_and_no_points_are_calm():
    assert "<circle" in line_chart([Line("a", [(1, 0.5)])], title="t", rounds=(1, 1))
    assert line_chart([Line("a", [])], title="t", rounds=(1, 1)) == ""


def test_the_forest_places_means_on_a_fixed_axis_and_leaves_out_the_undefined():
    score = {"mean": 0.25, "low": 0.0, "high": 0.5}
    dots = [Dot("a", "", "personal", score, [1.0]), Dot("b", "", "server", {"mean": None}, [])]
    svg = forest_plot(dots, title="t")
    # the axis runs from 200 to 660: a quarter is 315
    assert 'cx="315.0"' in svg
    assert 'x1="200.0"' in svg
    assert 'x2="430.0"' in svg
    assert re.search(r'class="cases" d="M660\.0 ', svg)
    assert ">b<" not in svg
    assert forest_plot(dots[1:], title="t") == ""


def test_sites_with_one_beginning_stay_apart_in_figures():
    names = [f"university-hospital-department-of-radiology-scanner-{n}" for n in (1, 2)]
    score = {"mean": 0.25, "low": 0.0, "high": 0.5}
    forest = forest_plot([Dot(name, "", "personal", score, []) for name in names], title="t")
    matrix = heatmap({(row, column): (0.5, False) for row in names for column in names})
    for svg in (forest, matrix):
        shown = set(re.findall(r">([^<>]*…[^<>]*)</text>", svg))
        assert {name[-1] for name in shown} == {"1", "2"}
        assert max(map(len, shown)) <= 32
    columns = re.findall(r'class="tick"[^>]*><title>[^<]*</title>([^<]*)</text>', matrix)
    assert max(map(len, columns)) <= 16  # of 96 units a cell


def test_a_small_matrix_is_not_blown_up_and_its_numbers_stay_legible():
    matrix = heatmap({("a", "b"): (1.0, False)})
    width = float(re.search(r"max-width: (\d+)px", matrix)[1])
    assert width / float(re.search(r'viewBox="0 0 (\d+)', matrix)[1]) <= 1.3
    # White on the dark page's green: above half of it the contrast falls under 4.5.
    assert float(re.search(r'fill-opacity="([\d.]+)"', matrix)[1]) <= 0.5
