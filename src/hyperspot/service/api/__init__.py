"""REST under `/api/v1`."""

from fastapi import APIRouter

from hyperspot.service import lookout
from hyperspot.service.api import (
    connections,
    health,
    inspecting,
    inspections,
    jobs,
    monitoring,
    pictures,
    products,
    review,
    training_images,
    versions,
)

ROUTERS: tuple[APIRouter, ...] = (
    inspecting.router,
    inspections.router,
    pictures.router,
    review.router,
    products.router,
    versions.router,
    training_images.router,
    jobs.router,
    monitoring.router,
    connections.sources,
    connections.outputs,
    health.router,
    lookout.router,
)
