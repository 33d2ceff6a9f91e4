"""Fine-tunes a detector of detectron2 from a backbone of ``coke export --format detectron2``.

It needs detectron2, and nothing of coke::

    python train.py --config-file voc_faster_rcnn_r50_c4.yaml --num-gpus 8 \
        MODEL.WEIGHTS backbone.pkl SOLVER.BASE_LR 0.05

``DETECTRON2_DATASETS`` names the folder of the data sets. Options are those of detectron2's own
training script: ``--resume``, ``--eval-only``, ``--num-machines``, settings by name at the end.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):  # type: ignore[misc]
    """The heads of a C4 detector with a batch norm behind the last stage (MoCo, section 4.2.1)."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts: dict[str, Any] = super().from_config(cfg, input_shape)
        stage = parts["res5"]
        stage.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, stage[-1].out_channels))
        return parts


class Trainer(DefaultTrainer):  # type: ignore[misc]
    """detectron2's trainer, with the evaluator that a data set's metadata ask for."""

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        if MetadataCatalog.get(dataset_name).evaluator_type == "pascal_voc":
            return PascalVOCDetectionEvaluator(dataset_name)
        return COCOEvaluator(dataset_name, output_dir=output_folder or cfg.OUTPUT_DIR)


def main(args: Namespace) -> Any:
    """One process: trains, or only tests, and returns the results."""
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpoint = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpoint.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    launch(
        main,
        arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )
