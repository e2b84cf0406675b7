"""A whole station: an image in a folder becomes a verdict at a receiver."""

import asyncio
import json

from hyperspot.service.database.tables import Inspection, Output, Source, SourceFile
from tests.service.conftest import running
from tests.service.plant import until
from tests.service.test_outputs_webhook import Receiver, receiver

__all__ = ["Receiver", "receiver"]


def test_from_a_folder_to_a_receiver(settings, model_file, good_image, bad_image, tmp_path, receiver):
    folder = tmp_path / "images"
    folder.mkdir()

    async def main():
        async with running(settings, model_file) as station:
            with station.database.session() as session:
                values = {"folder": str(folder), "steady_seconds": 0.1, "rescan_seconds": 0.5, "after": "move"}
                session.add(Source(name="camera 1", kind="folder", product_id="bolt", settings=values))
                address = {"address": f"http://127.0.0.1:{receiver.server_port}/verdicts"}
                session.add(Output(name="mes", kind="webhook", settings=address))
            await station.outputs.reload("mes")
            await station.sources.reload("camera 1")
            (folder / "1.png").write_bytes(good_image)
            await until(lambda: len(receiver.accepted) == 1, 60)
            (folder / "2.png").write_bytes(bad_image)
            await until(lambda: len(receiver.accepted) == 2, 60)
            # What waits now is written by the inspector's transaction, and comes after a restart.
            receiver.answers = [500] * 1000
            (folder / "3.png").write_bytes(good_image + b"\0")
            await until(lambda: (folder / "processed" / "3.png").exists(), 60)
        receiver.answers.clear()
        async with running(settings) as station:
            await until(lambda: station.outputs.status()["mes"]["delivered"] == 1, 60)
            await until(lambda: station.outputs.status()["mes"]["waiting"] == 0, 60)
            with station.database.session() as session:
                inspections = session.query(Inspection).order_by(Inspection.number).all()
                assert {row.state for row in session.query(SourceFile)} == {"processed"}
        assert [one["id"] for one in receiver.accepted] == [one.id for one in inspections]
        assert [one["source"] for one in receiver.accepted] == ["camera 1"] * 3
        assert [one["is_anomalous"] for one in receiver.accepted[:2]] == [False, True]
        assert json.loads(receiver.asked[0][2])["links"]["image"].endswith(f"{inspections[0].id}/image")

    asyncio.run(main())
