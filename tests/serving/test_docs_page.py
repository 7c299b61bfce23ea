from common.serving.docs_page import docs_page


def test_everything_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    page = docs_page(
        {
            "info": {"title": evil, "version": evil, "description": evil},
            "paths": {evil: {"get": {"summary": evil, "responses": {"200": {"description": evil}}}}},
            "components": {"schemas": {evil: {"description": evil}}},
        }
    )
    assert "<script" not in page and page.count("&lt;script&gt;") == 10
