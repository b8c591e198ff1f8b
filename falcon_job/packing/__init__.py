"""Prefix sharing: one row holds passages, each followed by its questions as branches that never see each other.

Other trainers repeat a passage for each of its questions. Here it stands once, and a *document mask* lets a question
see its passage and itself, so that loss and gradients equal those of separate sequences. A passage with two questions,
which begin alike, so that "Q:" stands once, too:

    slot            0    1    2    3    4    5    6    7    8    9    10   11
    token           The  sea  rose Q:   who? A:   Ann  END  why? A:   rain END
    position        0    1    2    3    4    5    6    7    4    5    6    7
    visible until   11   11   11   11   7    7    7    7    11   11   11   11
    learned                                  x    x              x    x

The second question (slots 8 to 11) takes its positions up where what it shares ended, and does not see the first (slots
4 to 7). "Visible until" is the last slot that sees a slot: this one number a slot is the whole mask. The same in code:

>>> import torch
>>> passage, who, why = [30, 31, 32], Branch([10, 11, 12], [40, 1]), Branch([10, 13, 12], [41, 1])
>>> layout = lay_out([Tree(passage, (why, who))])
>>> layout.input_ids.tolist()
[30, 31, 32, 10, 11, 12, 40, 1, 13, 12, 41, 1]
>>> layout.position_ids.tolist()
[0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]
>>> layout.visible_until.tolist()
[11, 11, 11, 11, 7, 7, 7, 7, 11, 11, 11, 11]
>>> for row in dense_mask(torch.from_numpy(layout.visible_until))[0, 0]:
...     print("".join("x" if seen else "." for seen in row))
x...........
xx..........
xxx.........
xxxx........
xxxxx.......
xxxxxx......
xxxxxxx.....
xxxxxxxx....
xxxx....x...
xxxx....xx..
xxxx....xxx.
xxxx....xxxx

The terms: a *step* is what one optimizer step learns from. Its trees are distributed over *packs*, rows of at most
`tokens_per_pack` slots, each a *micro-batch* whose gradients are added up. For compiled kernels a pack is padded to one
of a few *length buckets*. A branch is a *prompt* that is read and a *completion* that is learned.

This room knows neither models nor questions and imports nothing else of falcon_job. `PrefixTreeCollator` brings prefix
sharing to a plain `transformers.Trainer`.
"""

from falcon_job.packing.collator import PrefixTreeCollator
from falcon_job.packing.layout import Layout, lay_out
from falcon_job.packing.loss import branch_log_probabilities, completion_loss, pack_logits, token_log_probabilities
from falcon_job.packing.mask import BLOCK, BlockSparseMask, dense_mask, may_attend
from falcon_job.packing.pack import Pack, Packer, plain_sequence
from falcon_job.packing.tree import Branch, Tree

__all__ = [
    "BLOCK",
    "BlockSparseMask",
    "Branch",
    "Layout",
    "Pack",
    "Packer",
    "PrefixTreeCollator",
    "Tree",
    "branch_log_probabilities",
    "completion_loss",
    "dense_mask",
    "lay_out",
    "may_attend",
    "pack_logits",
    "plain_sequence",
    "token_log_probabilities",
]
