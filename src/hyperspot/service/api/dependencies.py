"""What routes take."""

from typing import Annotated

from fastapi import Depends, Request

from hyperspot.service.station import Station


def get_station(request: Request) -> Station:
    """Return the station that the application serves."""
    station: Station = request.app.state.station
    return station


StationDep = Annotated[Station, Depends(get_station)]
