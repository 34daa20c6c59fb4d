"""What the Hub's validator finds in the front matter of a model card."""

import re

import yaml

LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "other", "unknown"}
CARD_KEYS = {
    *("license", "license_name", "license_link", "library_name", "pipeline_tag", "tags"),
    *("datasets", "metrics", "language", "base_model", "model-index", "thumbnail", "widget"),
}


def card_errors(text):
    """What the Hub's validator finds in the front matter of a model card: its documented fields,
    and no others, of the right types."""
    match = re.match(r"---\n(.*?)\n---(\n|$)", text, re.DOTALL)
    if match is None:
        return ["the metadata is missing"]
    data = yaml.safe_load(match[1])
    errors = [f'"{key}" is not a field' for key in data if key not in CARD_KEYS]
    if "license" in data and data["license"] not in LICENSES:
        errors.append('"license" must be one of the known identifiers')
    for key in ("tags", "datasets", "metrics"):
        if not all(isinstance(value, str) and value for value in data.get(key, [])):
            errors.append(f'"{key}" must be a list of strings')
    if not all(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name)) for name in data.get("datasets", [])):
        errors.append('"datasets" must be ids of data sets')
    if data.get("pipeline_tag", "image-segmentation") != "image-segmentation":
        errors.append('"pipeline_tag" is not the one of these models')
    for index in data.get("model-index", []):
        if not isinstance(index.get("name"), str) or not index["name"]:
            errors.append('"model-index[0].name" is required')
        errors += [error for result in index["results"] for error in result_errors(result)]
    return errors


def result_errors(result):
    required = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
    errors = [
        f'"{part}.{key}" is required'
        for part, key in required
        if not isinstance(result.get(part, {}).get(key), str)
    ]
    if not result.get("metrics"):
        errors.append('"metrics" is required')
    for metric in result.get("metrics", []):
        if not isinstance(metric.get("type"), str) or "value" not in metric:
            errors.append('"metrics.type" and "metrics.value" are required')
        elif not isinstance(metric["value"], (int, float)) or metric["value"] != metric["value"]:
            errors.append('"metrics.value" must be a number')
    return errors
