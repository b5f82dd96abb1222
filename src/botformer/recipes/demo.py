"""The demo: handwritten digits on photographs. Everything here is ours, chosen for minutes on two CPU cores."""

from botformer.recipes.schema import Images, Model, Optimizer, Recipe, Run, Schedule

RECIPES = {
    "digits": Recipe(
        source="ours: the demo",
        expect="90 % on unseen digits and photographs",
        cost="three minutes on two CPU cores",
        ours=("model", "images", "optimizer", "schedule", "run"),
        # At this length of training blocks that start as the identity only lose time.
        model=Model("botnet_nano", zero_gamma=False),
        images=Images(size=48, augmentation="crop", flip=False, evaluation_crop=1.0),
        optimizer=Optimizer("adamw", learning_rate=4e-3, weight_decay=0.05),
        schedule=Schedule(epochs=3, warmup_epochs=0.25),
        # Layers this small only wait for a second thread; the other core reads the pictures.
        run=Run(batch_size=64, precision="float32", workers=1, threads=1),
    ),
}
