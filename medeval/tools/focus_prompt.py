"""The six functions that focus on columns and rows, as the published prompts describe them.

Word for word from VTool-R1/VTool-R1 at a1bf8c9 (examples/format_prompt/chartQA.jinja, Apache-2.0)
and zeyofu/ReFocus_Code at 8412b5f (src/prompt_need.py), which agree in all but the quotes.
"""

TOOL = """def focus_on_$axis_with_$mode(image, $axis_to_focus_on, all_$axis_bounding_boxes):
    $quotes
    This function is useful when you want to focus on some specific $axis of the image.
    It does this by $how.
    For example, you can focus on the $axis in a table that are relevant to your analysis$rest.
    Return the $made image.
$gap
    Args:
        image (PIL.Image.Image): the input image
        $axis_to_$listed (List[str]): a list of $kind names to focus on.
        all_$axis_bounding_boxes (Dict[Dict]$bracket): a dictionary of bounding boxes for all $axis in the image. key is $key and value is the bounding box of that $one. Each bounding box is in the format {'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2}.
$gap
    Returns:
        image_with_focused_$axis (PIL.Image.Image): the image with specified $axis focused on
$indent
    Example:
        image = Image.open("sample_img.jpg")
        image_with_focused_$axis = $called(image, $example)
        display(image_with_focused_$axis)
    $quotes
"""  # noqa: E501

COLUMNS = {
    "$listed": "mask",
    "$kind": "column",
    "$bracket": "]",
    "$key": "column name",
    "$one": "column",
    "$gap": "",
    "$indent": "        ",
    "$example": (
        """["Year", "Name"], {"Year": {'x1': 0.1, 'y1': 0.1, 'x2': 0.3, 'y2': 0.9}, "Team": {'x1': 0.4, 'y1': 0.1, 'x2': 0.6, 'y2': 0.9}, "Name": {'x1': 0.7, 'y1': 0.1, 'x2': 0.9, 'y2': 0.9}}"""  # noqa: E501
    ),
}
ROWS = {
    "$listed": "focus_on",
    "$kind names": "row headers",
    "$bracket": "",
    "$key": "row header",
    "$one": "row",
    "$gap": "    ",
    "$indent": "",
    "$example": (
        """["1972"], ["Year": {'x1': 0.1, 'y1': 0.1, 'x2': 0.9, 'y2': 0.15}, "1969": {'x1': 0.1, 'y1': 0.2, 'x2': 0.9, 'y2': 0.5}, "1972": {'x1': 0.1, 'y1': 0.6, 'x2': 0.9, 'y2': 0.9}]"""  # noqa: E501
    ),
}
HIGHLIGHT = {"$how": "adding light transparent red highlight to the $axis that need to be focused on", "$rest": "", "$made": "drawed"}  # fmt: skip  # noqa: E501
MASK = {"$how": "masking out the $axis that are not needed", "$rest": " and ignore the rest", "$made": "masked"}  # fmt: skip  # noqa: E501
DRAW = {"$how": "drawing a red box around the $axis that need to be focused on", "$rest": "", "$made": "drawed"}  # fmt: skip  # noqa: E501


def described(axis: str, mode: str, called: str, quotes: str) -> str:
    """One function as the published prompts describe it, with the function its example calls."""
    filled = {
        **(COLUMNS if axis == "columns" else ROWS),
        **{"highlight": HIGHLIGHT, "mask": MASK, "draw": DRAW}[mode],
        "$mode": mode,
        "$called": called,
        "$quotes": quotes,
        "$axis": axis,
    }
    text = TOOL
    for key, value in filled.items():
        text = text.replace(key, value)
    return text


def tools_text(quotes: str) -> str:
    """The six functions in their order; the examples call others than what they describe."""
    highlight_columns, highlight_rows, mask_columns, mask_rows, draw_columns, draw_rows = (
        described("columns", "highlight", "focus_on_columns_with_highlight", quotes),
        described("rows", "highlight", "focus_on_rows_with_highlight", quotes),
        described("columns", "mask", "focus_on_columns", quotes),
        described("rows", "mask", "focus_on_rows", quotes),
        described("columns", "draw", "focus_on_columns", quotes),
        described("rows", "draw", "focus_on_columns_with_highlight", quotes),
    )
    first = "\n".join((highlight_columns, highlight_rows, mask_columns, mask_rows))
    return f"{first}    \n{draw_columns}\n{draw_rows}"
