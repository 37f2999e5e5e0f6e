"""Reading airports, and the import's pages without a worker."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils.datastructures import MultiValueDict

from django_workflows import InstanceAlreadyExists
from django_workflows.models import WorkflowInstance
from example_project.imports.airports import BadFile, Rejected, read_airports
from example_project.imports.forms import MOST_BYTES, UploadForm
from example_project.imports.models import Airport, ImportJob
from example_project.imports.views import SAMPLE
from example_project.imports.workflows import import_airports

HEADER = "iata,name,city,state,country,latitude,longitude\n"
GOOD = "ABC,Field,Town,TX,USA,31.5,-89.25\n"


def upload_form(content: bytes = (HEADER + GOOD).encode()) -> dict[str, object]:
    return {"file": SimpleUploadedFile("airports.csv", content, "text/csv"), "pause": 0}


class TestReader:
    def test_reads_the_sample_completely(self) -> None:
        rows, rejected = read_airports(SAMPLE.read_bytes())
        assert len({row.iata for row in rows}) == len(rows) == 3376
        assert rejected == []

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("ABD,Field,Town,TX,USA,31.5", "number of fields"),
            ("ABC,Other,Town,TX,USA,31.5,-89.25", "code ABC is on line 2 already"),
            ("abd,Field,Town,TX,USA,31.5,-89.25", "capital letters"),
            ("ABD,,Town,TX,USA,31.5,-89.25", "name is empty"),
            ("ABD,F\0,Town,TX,USA,31.5,-89.25", "NUL"),
            ("ABD,Field,Town,Texas,USA,31.5,-89.25", "at most 2 characters, found 5"),
            ("ABD,Field,Town,TX,USA,north,-89.25", "from -90 to 90, found 'north'"),
            ("ABD,Field,Town,TX,USA,nan,-89.25", "from -90 to 90, found 'nan'"),
            ("ABD,Field,Town,TX,USA,31.5,-189.25", "from -180 to 180"),
        ],
    )
    def test_rejects_a_bad_line_with_its_number(self, line: str, reason: str) -> None:
        rows, rejected = read_airports(f"{HEADER}{GOOD}\n{line}\n".encode())
        assert [row.iata for row in rows] == ["ABC"]
        assert [bad.line for bad in rejected] == [4]
        assert reason in rejected[0].reason

    def test_numbers_lines_rightly_after_a_quoted_line_break(self) -> None:
        rows, rejected = read_airports(f'{HEADER}ABC,"Two\nlines",Town,TX,USA,1,2\nbad\n'.encode())
        assert rows[0].name == "Two\nlines"
        assert rejected == [Rejected(4, "the number of fields differs from the header's")]

    def test_takes_columns_in_any_order_and_a_byte_order_mark(self) -> None:
        text = "\ufefflongitude,latitude,country,state,city,name,iata,extra\n-89.25,31.5,USA,TX,Town,Field,ABC,x\n"
        rows, _ = read_airports(text.encode())
        assert (rows[0].iata, rows[0].longitude) == ("ABC", -89.25)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "The file is empty"),
            (b"iata;name;city\n", "found iata;name;city. Missing: iata, name"),
            (b"\n" + HEADER.encode(), "found an empty line"),
            ((HEADER + GOOD).encode() + b"ABD,Malm\xf6,", "Line 3: byte 0xf6 is not UTF-8"),
            ((HEADER + GOOD + 'ABD,"Field,Town').encode(), "Line 3: this is not valid CSV"),
        ],
    )
    def test_refuses_a_bad_file_with_one_sentence(self, data: bytes, message: str) -> None:
        with pytest.raises(BadFile) as raised:
            read_airports(data)
        assert message in str(raised.value)


@pytest.mark.django_db
class TestPages:
    def test_upload_creates_job_and_instance(self, staff_client: Client) -> None:
        response = staff_client.post("/airports/imports/new/", upload_form(), follow=True)
        job = ImportJob.objects.get()
        assert f"Import {job.pk} has started." in response.text
        instance = WorkflowInstance.objects.get()
        assert (instance.instance_id, instance.name) == (f"import-{job.pk}", "imports.import_airports")

    def test_upload_keeps_neither_if_the_workflow_cannot_start(self, staff_client: Client) -> None:
        earlier = ImportJob.objects.create()
        import_airports.using(instance_id=f"import-{earlier.pk + 1}").start(earlier.pk)
        with pytest.raises(InstanceAlreadyExists):
            staff_client.post("/airports/imports/new/", upload_form())
        assert ImportJob.objects.get() == earlier
        assert WorkflowInstance.objects.count() == 1

    def test_upload_of_a_huge_file_is_refused_in_the_form(self) -> None:
        file = SimpleUploadedFile("airports.csv", b"x" * (MOST_BYTES + 1), "text/csv")
        form = UploadForm({"pause": 0}, MultiValueDict({"file": [file]}))
        assert "at most 5 MB" in str(form.errors["file"])

    def test_imports_are_for_staff(self, client: Client) -> None:
        for path in ("/airports/imports/", "/airports/imports/new/", "/airports/imports/1/"):
            response = client.get(path)
            assert response.status_code == 302
            assert response.headers["Location"].startswith("/admin/login/")
        for action in ("decide", "cancel"):
            assert client.post(f"/airports/imports/1/{action}/").status_code == 403

    def test_visitors_see_published_airports_only(self, client: Client) -> None:
        place = {"city": "Town", "state": "TX", "country": "USA", "latitude": 1, "longitude": 2}
        Airport.objects.create(iata="ABC", name="Seen", published=True, **place)
        Airport.objects.create(iata="ABD", name="Hidden", **place)
        text = client.get("/airports/").text
        assert "Seen" in text
        assert "Hidden" not in text
        assert "0 airports" in client.get("/airports/?q=hidden").text

    def test_sample_can_be_downloaded(self, client: Client) -> None:
        response = client.get("/airports/sample.csv")
        assert response.getvalue() == SAMPLE.read_bytes()
