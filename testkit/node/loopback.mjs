// node --import ./loopback.mjs: what would listen on every address listens on 127.0.0.1.
import net from 'node:net';

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, host, ...rest) {
  if (typeof port === 'number' && typeof host !== 'string') return listen.call(this, port, '127.0.0.1', host, ...rest);
  return listen.call(this, port, host, ...rest);
};
