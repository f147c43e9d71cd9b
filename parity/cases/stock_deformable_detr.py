"""Deformable DETR R-50 as mmdet ships it: mmdet 2.22 against mmdet 3.3; drafted by ``parity new-case``, then mended."""

from __future__ import annotations

from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage
from parity.cases.common import PIXELS, RESNET
from parity.cases.odd_images import odd_images
from parity.cases.patterns import Constant, Detections, Ignore, Instances, Metas, Samples, Split, Transposed
from parity.weights.rules import Rename

TENSORS = {
    **PIXELS,
    "c": Meaning("backbone feature map of one stride", "activation"),
    "p": Meaning("neck feature map of one stride, 256 channels", "activation"),
    "memory": Meaning("encoder output (B, N, 256)", "activation"),
    "hidden_states": Meaning("normed decoder output, all layers (6, B, 300, 256)", "activation"),
    "references": Meaning("reference points leaving a decoder layer (B, 300, 2)", "normalised cxcy"),
    "cls_scores": Meaning("class scores of all decoder layers (6, B, 300, 80)", "logits"),
    "bbox_preds": Meaning("boxes of all decoder layers (6, B, 300, 4)", "normalised cxcywh"),
    "boxes": Meaning("final boxes of one image (N, 4)", "pixels xyxy"),
    "scores": Meaning("final scores of one image (N,)", "probability"),
    "labels": Meaning("final classes of one image (N,)", "class index"),
}

# The calls of the legacy engine; only the tensors' names have to be those below.
LEGACY_STAGES = (
    Stage("backbone", (Call("backbone", {"x": "image"}, ("c3", "c4", "c5")),)),
    Stage("neck", (Call("neck", {"inputs": ("c3", "c4", "c5")}, ("p3", "p4", "p5", "p6")),)),
    Stage(
        "encoder",
        (Call("bbox_head.transformer.encoder", {}, Transposed("memory", (1, 0, 2))),),
        replayable=False,
    ),
    Stage(
        "decoder",
        (
            Call(
                "bbox_head.transformer.decoder",
                {},
                (Transposed("hidden_states", (0, 2, 1, 3)), Split("references", 6)),
            ),
        ),
        begins_after="encoder",
        replayable=False,
    ),
    Stage(
        "bbox_head",
        (
            Call(
                "bbox_head",
                {"mlvl_feats": ("p3", "p4", "p5", "p6"), "img_metas": Metas()},
                ("cls_scores", "bbox_preds", Ignore(), Ignore()),
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.get_bboxes",
                {
                    "all_cls_scores": "cls_scores",
                    "all_bbox_preds": "bbox_preds",
                    "enc_cls_scores": Constant(None),
                    "enc_bbox_preds": Constant(None),
                    "img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Detections("boxes", "scores", "labels"),
            ),
        ),
    ),
)

# The calls of the new engine.
STAGES = (
    Stage("backbone", (Call("backbone", {"x": "image"}, ("c3", "c4", "c5")),)),
    Stage("neck", (Call("neck", {"inputs": ("c3", "c4", "c5")}, ("p3", "p4", "p5", "p6")),)),
    Stage(
        "encoder",
        (
            Call(
                "pre_transformer",
                {"mlvl_feats": ("p3", "p4", "p5", "p6"), "batch_data_samples": Samples()},
                (
                    {
                        "feat": "_feat",
                        "feat_mask": "_memory_mask",
                        "feat_pos": "_feat_pos",
                        "spatial_shapes": "_spatial_shapes",
                        "level_start_index": "_level_start_index",
                        "valid_ratios": "_valid_ratios",
                    },
                    {
                        "memory_mask": "_memory_mask",
                        "spatial_shapes": "_spatial_shapes",
                        "level_start_index": "_level_start_index",
                        "valid_ratios": "_valid_ratios",
                    },
                ),
            ),
            Call(
                "forward_encoder",
                {
                    "feat": "_feat",
                    "feat_mask": "_memory_mask",
                    "feat_pos": "_feat_pos",
                    "spatial_shapes": "_spatial_shapes",
                    "level_start_index": "_level_start_index",
                    "valid_ratios": "_valid_ratios",
                },
                {"memory": "memory"},
            ),
        ),
    ),
    Stage(
        "decoder",
        (
            Call(
                "pre_transformer",
                {"mlvl_feats": ("p3", "p4", "p5", "p6"), "batch_data_samples": Samples()},
                (
                    {
                        "feat_mask": "_memory_mask",
                        "spatial_shapes": "_spatial_shapes",
                        "level_start_index": "_level_start_index",
                        "valid_ratios": "_valid_ratios",
                    },
                    {
                        "memory_mask": "_memory_mask",
                        "spatial_shapes": "_spatial_shapes",
                        "level_start_index": "_level_start_index",
                        "valid_ratios": "_valid_ratios",
                    },
                ),
            ),
            Call(
                "pre_decoder",
                {"memory": "memory", "memory_mask": "_memory_mask", "spatial_shapes": "_spatial_shapes"},
                ({"query": "_query", "query_pos": "_query_pos", "reference_points": "_reference_points"}, Ignore()),
            ),
            Call(
                "forward_decoder",
                {
                    "query": "_query",
                    "query_pos": "_query_pos",
                    "memory": "memory",
                    "memory_mask": "_memory_mask",
                    "reference_points": "_reference_points",
                    "spatial_shapes": "_spatial_shapes",
                    "level_start_index": "_level_start_index",
                    "valid_ratios": "_valid_ratios",
                },
                {
                    "hidden_states": "hidden_states",
                    "references": (
                        Ignore(),
                        "references[0]",
                        "references[1]",
                        "references[2]",
                        "references[3]",
                        "references[4]",
                        "references[5]",
                    ),
                },
            ),
        ),
    ),
    Stage(
        "bbox_head",
        (
            Call(
                "pre_transformer",
                {"mlvl_feats": ("p3", "p4", "p5", "p6"), "batch_data_samples": Samples()},
                (
                    {"feat_mask": "_memory_mask", "spatial_shapes": "_spatial_shapes"},
                    {"memory_mask": "_memory_mask", "spatial_shapes": "_spatial_shapes"},
                ),
            ),
            Call(
                "pre_decoder",
                {"memory": "memory", "memory_mask": "_memory_mask", "spatial_shapes": "_spatial_shapes"},
                ({"reference_points": "_reference_points"}, Ignore()),
            ),
            Call(
                "bbox_head",
                {
                    "hidden_states": "hidden_states",
                    "references": (
                        "_reference_points",
                        "references[0]",
                        "references[1]",
                        "references[2]",
                        "references[3]",
                        "references[4]",
                        "references[5]",
                    ),
                },
                ("cls_scores", "bbox_preds"),
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.predict_by_feat",
                {
                    "all_layers_cls_scores": "cls_scores",
                    "all_layers_bbox_preds": "bbox_preds",
                    "batch_img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
            ),
        ),
    ),
)

# First match wins. Activations of size 1, class scores that spread, nothing trivial.
WEIGHTS = (
    *RESNET,
    Fill("bbox_head.cls_branches.*.bias", centre=-4.0, spread=0.3),
    Fill("bbox_head.cls_branches.*.weight", per_fan_in=True),
    Fill("bbox_head.reg_branches.*.4.weight", spread=0.3, per_fan_in=True),
    Fill("neck.convs.*.gn.weight", centre=1.0, spread=0.2),
    Fill("neck.extra_convs.*.gn.weight", centre=1.0, spread=0.2),
    Fill("bbox_head.transformer.encoder.layers.*.norms.*.weight", centre=1.0, spread=0.2),
    Fill("bbox_head.transformer.decoder.layers.*.norms.*.weight", centre=1.0, spread=0.2),
    Fill("*sampling_offsets.bias", spread=2.0),
    Fill("*sampling_offsets.weight", spread=0.5, per_fan_in=True),
    Fill("*attn*.out_proj.weight", spread=0.3, per_fan_in=True),
    Fill("*attentions*.out_proj.weight", spread=0.3, per_fan_in=True),
    Fill("*output_proj.weight", spread=0.5, per_fan_in=True),
    Fill("*ffn*.layers.1.weight", spread=0.3, per_fan_in=True),
    Fill("*scale", centre=1.0, spread=0.2),
    Fill("*embed*"),
    Fill("*bias", spread=0.1),
    Fill("backbone.*", spread=1.4, per_fan_in=True),
    Fill("*", per_fan_in=True),
)

# 378 keys keep their names, 232 are renamed.
RULES = (
    Rename("bbox_head\\.transformer\\.level_embeds", "level_embed"),
    Rename(
        "bbox_head\\.transformer\\.encoder\\.layers\\.(\\d+)\\.attentions\\.0\\.(.+)",
        "encoder.layers.\\1.self_attn.\\2",
    ),
    Rename("bbox_head\\.transformer\\.encoder\\.layers\\.(\\d+)\\.ffns\\.0\\.(.+)", "encoder.layers.\\1.ffn.\\2"),
    Rename("bbox_head\\.transformer\\.encoder\\.layers\\.(\\d+)\\.norms\\.(.+)", "encoder.layers.\\1.norms.\\2"),
    Rename(
        "bbox_head\\.transformer\\.decoder\\.layers\\.(\\d+)\\.attentions\\.0\\.(.+)",
        "decoder.layers.\\1.self_attn.\\2",
    ),
    Rename(
        "bbox_head\\.transformer\\.decoder\\.layers\\.(\\d+)\\.attentions\\.1\\.(.+)",
        "decoder.layers.\\1.cross_attn.\\2",
    ),
    Rename("bbox_head\\.transformer\\.decoder\\.layers\\.(\\d+)\\.ffns\\.0\\.(.+)", "decoder.layers.\\1.ffn.\\2"),
    Rename("bbox_head\\.transformer\\.decoder\\.layers\\.(\\d+)\\.norms\\.(.+)", "decoder.layers.\\1.norms.\\2"),
    Rename("bbox_head\\.transformer\\.reference_points\\.(.+)", "reference_points_fc.\\1"),
    Rename("bbox_head\\.query_embedding\\.(.+)", "query_embedding.\\1"),
)

RECORDS = {
    "padded": Batch(seed=70, sizes=((128, 160), (96, 150))),
    "tiny": Batch(seed=72, sizes=((64, 96), (32, 64))),
    "odd-images": odd_images(70),
}

CASES = (
    Case(
        id="stock_deformable_detr_r50_50e",
        title="Deformable DETR R-50, 50 epochs",
        legacy="mmdet2",
        new="mmdet3",
        configs={
            "mmdet2": "deformable_detr/deformable_detr_r50_16x2_50e_coco.py",
            "mmdet3": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
        },
        reported_ap=44.5,
        stages=STAGES,
        tensors=TENSORS,
        weights=WEIGHTS,
        records=RECORDS,
        legacy_stages=LEGACY_STAGES,
        rules=RULES,
    ),
)
