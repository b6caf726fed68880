"""content_refused: whether the service refused a prompt or a picture for its content, in any of its words.

Such a refusal is final: the same request is refused again. An outage of whatever checks the content is none, so a word
such as "moderation" decides only together with what became of the request. The gateway passes on the words of Gemini,
Vertex, Azure, Volcengine, Aliyun, Black Forest Labs and new-api, in the service's four
languages (``docs/toapis.md``, "Errors").
"""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_nanobanana.toapis.response_values import plain_word

#: Codes and finish reasons, written as :func:`plain_word` writes them.
_CODES: Final = frozenset(
    {
        "content_policy",
        "content_policy_violation",
        "content_policy_violated",
        "content_violation",
        "content_filter",
        "content_filtered",
        "content_blocked",
        "content_moderated",
        "content_moderation",
        "content_moderation_failed",
        "content_rejected",
        "content_unsafe",
        "unsafe_content",
        "moderation",
        "moderation_blocked",
        "moderation_failed",
        "moderation_rejected",
        "moderated",
        "request_moderated",
        "prompt_moderated",
        "policy_violation",
        "usage_policy_violation",
        "safety",
        "safety_blocked",
        "safety_violation",
        "blocked_by_safety",
        "image_safety",
        "image_recitation",
        "recitation",
        "blocklist",
        "prohibited_content",
        "image_prohibited_content",
        "spii",
        "nsfw",
        "nsfw_content",
        "nsfw_detected",
        "nsfw_content_detected",
        "sensitive_content",
        "sensitive_content_detected",
        "sensitive_words",
        "sensitive_words_detected",
        "data_inspection_failed",
        "responsible_ai_policy_violation",
        "risk_control",
        "risk_content",
    }
)
#: Volcengine's codes name what was checked, as in ``InputImageSensitiveContentDetected``.
_CODE: Final = re.compile(
    r"sensitive_content_detected|responsible_ai|_risk_detection$|(^|_)(nsfw|prohibited_content|image_safety)(_|$)"
)

#: Words that mean a refusal by themselves.
_PLAIN: Final = re.compile(
    r"content[ _-]?polic(y|ies)|(safety|usage|acceptable[ _-]use)[ _-]polic(y|ies)|policy[ _-]violation"
    r"|prohibited[ _-]?(content|use)|\bIMAGE_SAFETY\b|\bPROHIBITED_CONTENT\b|\bIMAGE_RECITATION\b"
    r"|\bfinish_?reason\W{1,4}(IMAGE_)?(SAFETY|RECITATION|BLOCKLIST|SPII)\b"
    r"|sensitive[ _-](words?|content|information)\b|(request|content|prompt|image)s?[ _-]moderated|^\W*moderated\W*$"
    r"|data_?inspection_?failed|\bnsfw\b|responsible[ _-]?ai",
    re.IGNORECASE,
)
_CHECK: Final = (
    r"(safety|moderation|moderators?|content[ _-](filters?|filtering|reviews?|checks?|audits?|guidelines|standards)"
    r"|guidelines|sensitive|inappropriate|sexual\w*|violence|nudity"
    r"|(explicit|unsafe|harmful|offensive|illegal|violent)[ _-](content|material|images?|prompts?|language|activit\w+))"
)
_REFUSED: Final = (
    r"(blocked|rejected|flagged|filtered|refused|denied|violat\w+|disallowed|forbidden|banned|not[ _-]pass\w*"
    r"|not[ _-]allowed|did not pass|failed to pass|triggered|detected)"
)
#: What was refused together with why, a few words apart, in either order.
_TOGETHER: Final = re.compile(
    rf"\b{_REFUSED}\b(?:\W+\w+){{0,6}}?\W+{_CHECK}\b|\b{_CHECK}\b(?:\W+\w+){{0,4}}?\W+{_REFUSED}\b", re.IGNORECASE
)
_ASIAN: Final = re.compile(
    r"(?<!大小写)敏感|违规|違規|违禁|違禁|违反.{0,12}(政策|规定|规范|法律|准则)|涉黄|涉政|色情|不合规|不合規|内容安全|內容安全"
    r"|不适宜|不當內容|不当内容|安全.{0,6}(拦截|攔截|过滤|過濾|策略)"
    r"|[审審][核查].{0,8}(未|不|没|沒|失败|失敗|拒|拦|攔|驳|駁|违)"
    r"|(未|不|没|沒)(能|有)?(通过|通過|过|過).{0,8}[审審]"
    r"|コンテンツポリシー|ポリシー違反|不適切|有害な|콘텐츠 정책|정책 위반|부적절|유해"
)
#: Whatever checks the content is out of order: that passes, so it is no refusal of this content.
_OUTAGE: Final = re.compile(
    r"time[ds]?[ _-]?out|unavailable|overload|unreachable|temporar|internal (server )?error|try again later"
    r"|too many requests|connection|超时|超時|繁忙|稍后|稍後|服务异常|服務異常|系统异常"
    r"|不可用|[审審][核查](服务|服務|接口|系统|系統)",
    re.IGNORECASE,
)


def content_refused(code: str, message: str) -> bool:
    """Whether a request was refused for its content; the code decides, then the text."""
    word = plain_word(code)
    if word in _CODES or _CODE.search(word):
        return True
    words = (_PLAIN, _TOGETHER, _ASIAN)
    return any(pattern.search(message) for pattern in words) and not _OUTAGE.search(message)
