"""`GET /api/usage`: the report of usage and cost, for programs. The same numbers as the admin's page and its CSV."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from keys.csv_text import csv_response
from keys.report_form import ReportForm
from keys.report_rows import csv_heading, csv_rows, json_of
from keys.reports import read_report
from proxy.errors import Refusal
from proxy.stats_view import KeyStatsView, authorize

FORMATS = ("json", "csv")
PERMISSION = "keys.view_usagehour"


class UsageView(KeyStatsView):
    """For a client key with the scope `stats`, or the session of someone who may see the admin's report."""

    def get(self, request: Request) -> Response | StreamingHttpResponse:  # type: ignore[override]  # CSV too
        authorize(request, timezone.now(), permission=PERMISSION)
        as_csv = _wants_csv(request.query_params.get("format", "json"))
        query = {name: value for name, value in request.query_params.dict().items() if name != "format"}
        _check_names(query)
        form = ReportForm(query)
        if not form.is_valid():
            name, errors = next(iter(form.errors.items()))
            raise Refusal(400, "invalid_request_error", f"{name}: {errors[0]}")
        report = read_report(form.question())
        if as_csv:
            return csv_response(request._request, "usage.csv", csv_heading(report), csv_rows(report))
        return Response(json_of(report))


def _wants_csv(name: str) -> bool:
    if name not in FORMATS:
        raise Refusal(400, "invalid_request_error", f"format: must be one of {', '.join(FORMATS)}.")
    return name == "csv"


def _check_names(query: dict[str, str]) -> None:
    """A misspelt filter must not give the numbers of everything."""
    for name in query.keys() - ReportForm.base_fields.keys():
        known = ", ".join(("format", *ReportForm.base_fields))
        raise Refusal(400, "invalid_request_error", f"{name[:50]}: there is no such parameter. There are {known}.")
