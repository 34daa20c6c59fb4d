"""The page that compares the networks: `python app.py`, or `gradio app.py` to reload it."""

from importlib import import_module
from importlib.util import find_spec

if find_spec("spaces"):  # on a ZeroGPU Space, before anything touches CUDA
    import_module("spaces")

from segmodels.demo.page import create_page, serve

demo = create_page()

if __name__ == "__main__":
    serve(demo)
