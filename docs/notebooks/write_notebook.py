"""botformer.ipynb: its cells as plain text, and how they are run.

python docs/notebooks/write_notebook.py            # run the cells and write the notebook with what they show
python docs/notebooks/write_notebook.py --check    # fail if the notebook has other cells than these
"""

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).with_name("botformer.ipynb")
_SECONDS = 300
_KERNEL = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3"}

CELLS = r'''
# %% [markdown]
# # botformer in a notebook
#
# A BoTNet is a ResNet whose last stage attends to the whole image. In five minutes on a CPU: its shapes, a detector on
# a micrograph, what it looks at, a training, and a network that leaves PyTorch.
#
# **On a notebook service**, upload the repository as a folder, or its wheel (`uv build`), beside this notebook. The
# first cell installs it; where botformer is installed already, it does nothing.

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("botformer") is None:
    here = Path.cwd()
    found = [folder for folder in (here, *here.parents, *here.iterdir()) if (folder / "src/botformer").is_dir()]
    found += sorted(here.glob("botformer-*.whl"))
    if not found:
        raise FileNotFoundError(f"upload the repository or its wheel (botformer-*.whl) into {here}, and run this again")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"{found[0]}[demo,detection,export]"], check=True)

# %%
import io
import warnings

import torch
from IPython.display import Image, display

import botformer
from botformer import cli, explain
from botformer.data import synthetic


def show(drawn, width=760):
    """A figure of matplotlib, an image of Pillow or a file, small enough for a notebook."""
    from PIL import Image as Pillow

    if hasattr(drawn, "savefig"):
        content = io.BytesIO()
        drawn.savefig(content, dpi=100)
        drawn = content
    image = drawn if hasattr(drawn, "thumbnail") else Pillow.open(drawn)
    image = image.convert("RGB")
    image.thumbnail((width, 10 * width))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=80)
    display(Image(small.getvalue()))


def run(line):
    """A command of botformer, as in a terminal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="install .ipywidgets")  # of the progress bar, which is not shown here
        status = cli.main(line.split())
    assert not status, f"botformer {line}: exit status {status}"


# %% [markdown]
# ## Any height, any width
#
# One set of position tables serves every map. Multiples of 32 are nothing special.

# %%
backbone = botformer.create_backbone("botnet50", image_size=224).eval()
shapes = {}
with torch.no_grad():
    for height, width in (224, 224), (193, 97), (64, 301):
        maps = backbone(torch.rand(1, 3, height, width))
        shapes[height, width] = {name: tuple(each.shape[1:]) for name, each in maps.items()}
        print(f"{height:3} x {width:3} px:", shapes[height, width])

# %% [markdown]
# ## A detector that comes with the package
#
# It outlines nuclei. The micrograph is of the 2018 Data Science Bowl (CC0); it was in its training.

# %%
cells = Path(synthetic.__file__).parent / "bbbc038/nuclei.png"
nuclei = botformer.predictor("nuclei")(cells).above(0.5)
print(f"{len(nuclei)} nuclei, the best: score {nuclei.scores[0]:.2f} at {nuclei.boxes_xyxy[0].round().tolist()}")
show(nuclei.draw())

# %% [markdown]
# ## Where its attention looks
#
# From the ring, in the middle of a nucleus: each of the four heads over the darkened image. A logit has a term of
# content and a term of position; the second figure is that of position alone.

# %%
from botformer.plots.explanation_figures import figure_attention_heads, figure_class_maps

model, config = botformer.load("nuclei")
seen = explain.see(config, cells)
query = seen.pixel(248, 307)
layers = explain.attention_heads(model, seen.pixels, query)
show(figure_attention_heads(seen.image, layers, query))
show(figure_attention_heads(seen.image, layers, query, "position_alone"))

# %% [markdown]
# What a detection is made of, through attention (rollout), and what raises its score (Grad-CAM):

# %%
x1, y1, x2, y2 = box = nuclei.boxes_xyxy[0].tolist()
middle = (y1 + y2) / 2, (x1 + x2) / 2
flow = explain.rollout(model, seen.pixels, middle)
cam = explain.grad_cam_of_detection(model, seen.pixels, box, label=1)
show(figure_class_maps(seen.image, flow, cam.cam, middle))

# %% [markdown]
# ## Train one
#
# Handwritten digits on photographs, both from inside installed packages; training and validation share neither digits
# nor photographs. The recipe of `botformer demo`, on a fraction of its images: half a minute.

# %%
from botformer.data.synthetic.digits import write_digits

write_digits(Path("digits"), train=8_000, validation=500)
run("train digits --data digits --out runs/digits --run.workers 0 --schedule.epochs 3 --schedule.warmup-epochs 0.3")
show("runs/digits/curves.png")

# %%
import json

run("evaluate runs/digits --data digits --out measured --workers 0")
top1 = json.loads(Path("measured/metrics.json").read_text())["top1"]
print(f"{top1:.0%} of 500 unseen digits are right; guessing gives 10 %")
show("measured/confusion.png")

# %% [markdown]
# ## Use it, save it, load it
#
# One of the unseen digits. After so little training the answer may be wrong; `botformer demo` trains on five times as
# many.

# %%
digit = sorted(Path("digits/validation/7").iterdir())[0]
show(botformer.predictor("runs/digits")(digit).draw(truth="7"))

network, config = botformer.load("runs/digits")
botformer.save(network, config, "digits.safetensors")
again, _ = botformer.load("digits.safetensors")
pixels = explain.see(config, digit).pixels[None]
with torch.no_grad():
    same = torch.equal(network.eval()(network.preprocess(pixels)), again.eval()(again.preprocess(pixels)))
print(f"{Path('digits.safetensors').stat().st_size / 1000:.0f} kB; the same logits, to the bit: {same}")

# %% [markdown]
# ## Without PyTorch
#
# A folder with an ONNX graph for any batch, height and width, compared with PyTorch before it is written, and a
# `run.py` that needs neither botformer nor PyTorch.

# %%
deployed = []
if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
    run("export runs/digits --format onnx --out deployed")
    deployed = sorted(file.name for file in Path("deployed").iterdir())
    answer = subprocess.run([sys.executable, "deployed/run.py", str(digit)], capture_output=True, text=True, check=True)
    print(deployed, answer.stdout, sep="\n")
else:
    print("pip install 'botformer[export]', and run this cell again")

# %% [markdown]
# Your own images: `botformer train auto --data DIR --minutes 30`.
'''


def cells() -> list[NotebookNode]:
    """The percent format: "# %% [markdown]" above lines of comments, "# %%" above code."""
    made: list[NotebookNode] = []
    for part in re.split(r"^(?=# %%)", CELLS.strip(), flags=re.MULTILINE)[1:]:
        mark, _, text = part.partition("\n")
        text = text.strip()
        if mark.endswith("[markdown]"):
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.split("\n"))
        make = nbformat.v4.new_markdown_cell if mark.endswith("[markdown]") else nbformat.v4.new_code_cell
        made.append(make(text, id=f"cell-{len(made)}"))
    return made


def notebook() -> NotebookNode:
    """Without outputs."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells(), metadata=kernel)


def execute(made: NotebookNode, folder: Path, kernels: Path) -> None:
    """Run the cells in `folder` with this very Python; nothing is registered outside `kernels`, an empty folder.

    Raises:
        CellExecutionError: a cell failed.
    """
    (kernels / "python3").mkdir()
    (kernels / "python3/kernel.json").write_text(json.dumps(_KERNEL | {"language": "python"}), encoding="utf-8")
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
    )
    NotebookClient(made, km=manager, timeout=_SECONDS, resources={"metadata": {"path": str(folder)}}).execute()


def _sources(made: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in made.cells]


def main() -> None:
    if "--check" in sys.argv[1:]:
        if _sources(nbformat.read(NOTEBOOK, 4)) != _sources(notebook()):
            sys.exit(f"{NOTEBOOK} has other cells; run python docs/notebooks/write_notebook.py")
        return
    made = notebook()
    with TemporaryDirectory() as folder, TemporaryDirectory() as kernels:
        execute(made, Path(folder), Path(kernels))
    for cell in made.cells:  # when something ran, and lines of progress, are noise in a diff
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    nbformat.write(made, NOTEBOOK)


if __name__ == "__main__":
    main()
