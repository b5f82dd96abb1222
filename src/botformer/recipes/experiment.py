"""One row of the tables of recipes: a recipe, where it comes from, how to run it, what to expect and what it cost."""

from dataclasses import dataclass

from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe

NOT_IN_THE_PAPER = "not in the paper"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Experiment:
    """A recipe and what is known of it. Nothing here but `recipe` changes what is trained."""

    name: str
    """What stands after `botformer train`."""
    recipe: ClassificationRecipe | DetectionRecipe
    """What is trained, and how."""
    source: str
    """Where the settings come from."""
    expect: str
    """The score: the paper's where it reports one (then it says so), else ours."""
    paper: str = NOT_IN_THE_PAPER
    """The paper's table and section."""
    cost: str = NOT_RUN
    """What training took, as measured; never an estimate."""
    receipt: str = ""
    """The file of the measurement: results/RECEIPT.json."""
    options: str = ""
    """What the command needs beside the data, such as first weights."""
    ours: tuple[str, ...] = ()
    """Fields, or groups of fields, that no source gives: our choice."""

    @property
    def command(self) -> str:
        """What one types; DIR is the folder of the data."""
        return f"botformer train {self.name} --data DIR {self.options}".rstrip()
