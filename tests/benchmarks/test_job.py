"""Benchmarks spread their work over all GPUs of a machine."""

from collections import Counter
from threading import Barrier

from benchmarks import job


def test_each_item_is_handled_on_one_of_the_visible_gpus(monkeypatch):
    monkeypatch.setattr(job.torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    together = Barrier(4)

    def work(item, gpu):
        if item < 4:
            together.wait(timeout=20)  # two items at a time on each of two GPUs
        return item, gpu

    done = list(job.on_all_gpus(work, range(9), at_once=2))
    assert [item for item, _ in done] == list(range(9))
    assert Counter(gpu for _, gpu in done[:4]) == {"2": 2, "5": 2}


def test_without_a_gpu_none_is_visible(monkeypatch):
    monkeypatch.setattr(job.torch.cuda, "is_available", lambda: False)
    assert list(job.on_all_gpus(lambda item, gpu: (item, gpu), [1, 2], at_once=1)) == [(1, ""), (2, "")]
