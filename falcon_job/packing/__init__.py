"""Prefix sharing: one row holds passages, each followed by its questions as branches that cannot attend to each other.

Other trainers repeat a passage for each of its questions. Here it is stored once. A *document mask* lets each question
attend only to its passage and to itself, so loss and gradients equal those of separate sequences. In this example, one
passage has two questions. Both begin with "Q:", which is stored once, too:

    slot            0    1    2    3    4    5    6    7    8    9    10   11
    token           The  sea  rose Q:   who? A:   Ann  END  why? A:   rain END
    position        0    1    2    3    4    5    6    7    4    5    6    7
    visible until   11   11   11   11   7    7    7    7    11   11   11   11
    has loss                                      x    x              x    x

A *slot* is the place of one token in the row. The second question (slots 8 to 11) continues at position 4, because it
shares the tokens at positions 0 to 3. It does not attend to the first question (slots 4 to 7). "Visible until" says
which slot is the last to attend to a slot. This one number per slot defines the whole mask. The same in code:

>>> import torch
>>> passage, who, why = [30, 31, 32], Branch([10, 11, 12], [40, 1]), Branch([10, 13, 12], [41, 1])
>>> layout = lay_out([Tree(passage, (why, who))])
>>> layout.input_ids.tolist()
[30, 31, 32, 10, 11, 12, 40, 1, 13, 12, 41, 1]
>>> layout.position_ids.tolist()
[0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]
>>> layout.visible_until.tolist()
[11, 11, 11, 11, 7, 7, 7, 7, 11, 11, 11, 11]
>>> layout.labels.tolist()  # a label is predicted by the slot before it
[-100, -100, -100, -100, -100, -100, 40, 1, -100, -100, 41, 1]
>>> def show(mask):
...     for row in mask[0, 0]:
...         print("".join("x" if seen else "." for seen in row))
>>> show(dense_mask(torch.from_numpy(layout.visible_until)))
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

A second passage in the same row starts again at position 0, and neither passage attends to the other:

>>> layout = lay_out([Tree([30, 31], (Branch([10], [40]),)), Tree([32], (Branch([10], [41]), Branch([11], [42])))])
>>> layout.position_ids.tolist()
[0, 1, 2, 3, 0, 1, 2, 1, 2]
>>> show(dense_mask(torch.from_numpy(layout.visible_until)))
x........
xx.......
xxx......
xxxx.....
....x....
....xx...
....xxx..
....x..x.
....x..xx

More terms: a *tree* is a prefix with its branches. A branch is a *prompt*, which has no loss, and a *completion*, which
is trained on. A *step* is the data of one optimizer step. Its trees are distributed over *packs*, rows of at most
`tokens_per_pack` tokens. Each pack is a *micro-batch*, and the gradients of all packs of a step are accumulated. For
compiled kernels, a pack is padded to one of a few *length buckets*.

`packing` knows nothing about models or questions and imports nothing else from falcon_job. `PrefixTreeCollator` adds
prefix sharing to a plain `transformers.Trainer`.
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
