"""What a new repository holds before anybody has pushed to it."""

from infra.hub.embedded.records import RepoKind

_EVERYWHERE = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl "
    "*.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
_IN_DATASETS = "*.lz4 *.mds *.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg *.jpeg *.webp *.mp4 *.webm"


def first_files(kind: RepoKind, name: str, sdk: str | None) -> dict[str, bytes]:
    """.gitattributes, and for a Space the card that says how it runs."""
    patterns = _EVERYWHERE.split() + (_IN_DATASETS.split() if kind == "dataset" else [])
    files = {".gitattributes": "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in patterns).encode()}
    if kind == "space":
        files["README.md"] = f"---\ntitle: {name}\nsdk: {sdk}\npinned: false\n---\n".encode()
    return files
